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
