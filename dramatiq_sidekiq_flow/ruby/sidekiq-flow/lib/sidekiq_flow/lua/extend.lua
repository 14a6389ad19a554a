-- Barriers and the memory of a run live on, none of them shorter than before.
--
-- KEYS: swf:keep:MEMORY ('' = none), then the keys to keep alive
-- ARGV: ttl in seconds, '1' where the memory is to live that long even when
--       the run is over before
-- Returns: how many of the keys are there

local ttl, found = tonumber(ARGV[1]), 0
if ARGV[2] == '1' and KEYS[1] ~= '' and redis.call('TTL', KEYS[1]) < ttl then
  redis.call('SETEX', KEYS[1], ttl, 1)
end
for i = 2, #KEYS do
  local left = redis.call('TTL', KEYS[i])
  if left ~= -2 then found = found + 1 end
  if left >= 0 and left < ttl then redis.call('EXPIRE', KEYS[i], ttl) end
end
return found
