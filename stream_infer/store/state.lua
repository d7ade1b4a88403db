-- Store rows and the log position they are folded up to, if this owner's epoch is still the newest
-- and what is stored is what these rows were folded onto.
-- KEYS[1] the partition's header, KEYS[2..] rows; ARGV epoch, the position stored before ('' for
-- none), next_offset, stream_time_us, then for each row: its bytes and its idle milliseconds.
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
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[2 * i + 1], 'PX', ARGV[2 * i + 2])
end
redis.call('HSET', KEYS[1], 'next_offset', ARGV[3], 'stream_time_us', ARGV[4])
return 1
