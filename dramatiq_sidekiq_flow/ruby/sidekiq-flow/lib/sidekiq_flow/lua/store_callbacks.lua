-- Stores the steps of a chain, once, for payloads that refer to them.
--
-- KEYS: swf:callbacks:SHA256, a hash index -> SHA256 of the next value (empty
--       at the end), ':', the step's JSON
-- ARGV: ttl in seconds, the values from index 0 on
-- Returns: 1, or 0 if they are stored already (they then live for the ttl at least)

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end
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

local key, ttl = KEYS[1], tonumber(ARGV[1])
if prolong_volatile(key, ttl, 0) then return 0 end
local fields = {}
for i = 2, #ARGV do
  fields[#fields + 1] = i - 2
  fields[#fields + 1] = ARGV[i]
end
call_in_slices('HSET', key, fields, 1, #fields)
redis.call('EXPIRE', key, ttl)
return 1
