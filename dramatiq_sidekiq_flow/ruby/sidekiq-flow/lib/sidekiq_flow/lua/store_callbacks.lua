-- Stores the steps of a chain once, for payloads that refer to them.
--
-- KEYS: swf:callbacks:SHA256, a hash index -> SHA256 of the next value (empty
--       at the end), ':', the step's JSON; 'largest' -> size of the largest value
-- ARGV: ttl in seconds, the values from index 0 on
-- Returns: 1, or 0 if they were stored before (then they are prolonged to the ttl)

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end
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

local key, ttl = KEYS[1], tonumber(ARGV[1])
if prolong_volatile(key, ttl, 0) then return 0 end
local fields, largest = {}, 0
for i = 2, #ARGV do
  largest = math.max(largest, #ARGV[i])
  fields[#fields + 1] = i - 2
  fields[#fields + 1] = ARGV[i]
end
fields[#fields + 1] = 'largest'
fields[#fields + 1] = largest
call_in_slices('HSET', key, fields, 1, #fields)
redis.call('EXPIRE', key, ttl)
return 1
