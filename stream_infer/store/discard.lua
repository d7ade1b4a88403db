-- Delete rows of a partition that cannot be trusted, if this owner's epoch is still the newest.
-- KEYS[1] the partition's header, then rows; ARGV the epoch, what to do, and the mark of evictions.
-- 'begin' forgets the position first: who comes after a crash in the middle goes on deleting.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
  return -1
end
if epoch ~= ARGV[1] then
  return 0
end
if ARGV[2] == 'begin' then
  redis.call('HSET', KEYS[1], 'discarding', '1')
  redis.call('HDEL', KEYS[1], 'next_offset', 'stream_time_us')
elseif ARGV[2] == 'end' then
  redis.call('HDEL', KEYS[1], 'discarding', 'evictions')
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[1], 'evictions', ARGV[3])
  end
end
for i = 2, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
return 1
