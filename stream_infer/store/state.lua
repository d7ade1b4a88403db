-- Store rows and the log position they are folded up to, if this owner's epoch is still the newest
-- and what is stored is what these rows were folded onto.
-- KEYS[1] the partition's header; ARGV epoch, the position stored before ('' for none), next_offset,
-- stream_time_us, groups of rows in JSON, as [key prefix, idle milliseconds, kept, [key, …], [bytes, …]]
-- with the rows' lengths, the rows' bytes one after the other, and until when, in seconds of this
-- server's clock, rows that are 'kept' keep their expiry, which was set lately.
-- Rows are among KEYS on a cluster only, where a slot may be moving: naming them one by one costs more
-- than storing them. Their prefix has the header's hash tag, so they are where the header is.
-- Answers this server's clock in seconds when stored; 0 when another owner has taken the partition
-- since; -1 when the stored position is another one: writes were lost, and rows that are clean in
-- memory are older here.
local call, sub, rows = redis.call, string.sub, ARGV[6]
local stored = call('HMGET', KEYS[1], 'epoch', 'next_offset')
if not stored[1] then
  return -1
end
if stored[1] ~= ARGV[1] then
  return 0
end
local position = stored[2] or ''
-- The new position already: this is a repeat of a write whose answer was lost.
if position ~= ARGV[2] and position ~= ARGV[3] then
  return -1
end
local now_s = tonumber(call('TIME')[1])
local in_time = now_s < tonumber(ARGV[7])
local first = 1
for _, group in ipairs(cjson.decode(ARGV[5])) do
  local prefix, idle_ms, kept, keys, lengths = unpack(group)
  local keeps = in_time and kept ~= ''
  for i, key in ipairs(keys) do
    local last = first + lengths[i] - 1
    local name, row = prefix .. key, sub(rows, first, last)
    -- A row that is gone, evicted or deleted, has no expiry to keep.
    if not keeps or not call('SET', name, row, 'KEEPTTL', 'XX') then
      call('SET', name, row, 'PX', idle_ms)
    end
    first = last + 1
  end
end
call('HSET', KEYS[1], 'next_offset', ARGV[3], 'stream_time_us', ARGV[4])
return now_s
