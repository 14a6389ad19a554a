-- Stores the steps of a chain once, for payloads that refer to them.
--
-- KEYS: swf:callbacks:SHA256, a hash index -> SHA256 of the next value (empty
--       at the end), ':', the step's JSON
-- ARGV: ttl in seconds, the values from index 0 on
-- Returns: 1, or 0 if they were stored before (then they are prolonged to the ttl)

-- @include _slices
-- @include _prolong

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
