-- Say what Redis does when its memory is full, and how many keys it has evicted since it was started:
-- policy, most bytes, run id, evicted keys. KEYS[1] is the key whose node is asked.
local told = redis.call('INFO')
local function value(name)
  return string.match(told, name .. ':([^\r\n]*)') or ''
end
return {value('maxmemory_policy'), value('maxmemory'), value('run_id'), value('evicted_keys')}
