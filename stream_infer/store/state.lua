-- Store rows and the log position they are folded up to, if this owner's epoch is still the newest
-- and what is stored is what these rows were folded onto.
-- KEYS[1] the partition's header; ARGV epoch, the position stored before ('' for none), next_offset,
-- stream_time_us, groups of rows in JSON, as [key prefix, idle milliseconds, [key, …], [bytes, …]]
-- with the rows' lengths, and the rows' bytes one after the other.
-- Rows are among KEYS on a cluster only, where a slot may be moving: naming them one by one costs more
-- than storing them. Their prefix has the header's hash tag, so they are where the header is.
-- Answers 1 when stored; 0 when another owner has taken the partition since; -1 when the stored
-- position is another one: writes were lost, and rows that are clean in memory are older here.
local stored = redis.call('HMGET', KEYS[1], 'epoch', 'next_offset')
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
local first = 1
for _, group in ipairs(cjson.decode(ARGV[5])) do
  local prefix, idle_ms, keys, lengths = unpack(group)
  for i, key in ipairs(keys) do
    local last = first + lengths[i] - 1
    redis.call('SET', prefix .. key, string.sub(ARGV[6], first, last), 'PX', idle_ms)
    first = last + 1
  end
end
redis.call('HSET', KEYS[1], 'next_offset', ARGV[3], 'stream_time_us', ARGV[4])
return 1
