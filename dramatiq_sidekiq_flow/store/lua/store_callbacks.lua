-- Stores the steps of a chain once, for payloads that refer to them.
--
-- KEYS: swf:callbacks:SHA256, a hash index -> SHA256 of the next value (empty
--       at the end), ':', the step's JSON; 'largest' -> size of the largest value
-- ARGV: ttl in seconds, the values from index 0 on
-- Returns: 1, or 0 if they were stored before (then they are prolonged to the ttl)

-- @include _slices
-- @include _prolong

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
