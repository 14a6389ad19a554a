-- Extends the lifetimes of a run's barriers and memory; shortens none of them.
--
-- KEYS: swf:keep:MEMORY ('' = none), then the keys to keep alive
-- ARGV: ttl in seconds, '1' if the memory is to live that long even when the run
--       is over before
-- Returns: how many of the keys exist

-- Lets keys live longer, never shorter.  A missing key stays missing.
--
-- prolong(key, ttl): for ttl seconds at least, also a key that had no expiry, since
--       all that belongs to a run expires
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but a
--       key without an expiry keeps none, and one that has up to slack seconds less
--       than ttl is left as it is

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
