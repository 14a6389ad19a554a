-- Extends the lifetimes of a run's barriers and memory; shortens none of them.
--
-- KEYS: swf:keep:MEMORY ('' = none), then the keys to keep alive
-- ARGV: ttl in seconds, '1' if the memory must live that long even if the run ends
--       earlier
-- Returns: number of the keys that exist

-- Extends lifetimes, and never shortens them.  A missing key stays missing.
--
-- prolong(key, ttl): to at least ttl seconds.  A key without an expiry gets one, since
--       all keys of a run expire
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but
--       leaves a key without an expiry unchanged, and one whose lifetime is at most
--       slack seconds shorter than ttl

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end

local ttl, found = tonumber(ARGV[1]), 0
if ARGV[2] == '1' and KEYS[1] ~= '' and redis.call('TTL', KEYS[1]) < ttl then
  redis.call('SETEX', KEYS[1], ttl, 1)
end
for i = 2, #KEYS do
  if prolong_volatile(KEYS[i], ttl, 0) then found = found + 1 end
end
return found
