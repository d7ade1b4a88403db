-- Store rows and the log position they are folded up to, if this owner's epoch is still the newest.
-- KEYS[1] the partition's header, KEYS[2..] rows; ARGV epoch, next_offset, stream_time_us,
-- then for each row: its bytes and its idle time in milliseconds.
-- Answers 1 when stored, 0 when another owner has taken the partition since.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
  return 0
end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[2 * i], 'PX', ARGV[2 * i + 1])
end
redis.call('HSET', KEYS[1], 'next_offset', ARGV[2], 'stream_time_us', ARGV[3])
return 1
