-- Extends the lifetimes of a run's barriers and memory; shortens none of them.
--
-- KEYS: swf:keep:MEMORY ('' = none), then the keys to keep alive
-- ARGV: ttl in seconds, '1' if the memory must live that long even if the run ends
--       earlier
-- Returns: number of the keys that exist

-- @include _prolong

local ttl, found = tonumber(ARGV[1]), 0
if ARGV[2] == '1' and KEYS[1] ~= '' and redis.call('TTL', KEYS[1]) < ttl then
  redis.call('SETEX', KEYS[1], ttl, 1)
end
for i = 2, #KEYS do
  if prolong_volatile(KEYS[i], ttl, 0) then found = found + 1 end
end
return found
