-- Keep the steps of a chain, once, for payloads that refer to them.
--
-- KEYS: swf:callbacks:SHA256, a hash index -> SHA256 of the next value (empty
--       at the end), ':', the step's JSON
-- ARGV: ttl in seconds, the values from index 0 on
-- Returns: 1, or 0 where they are there already (its life is prolonged)

local key, ttl = KEYS[1], tonumber(ARGV[1])
local left = redis.call('TTL', key)
if left ~= -2 then
  if left ~= -1 and left < ttl then redis.call('EXPIRE', key, ttl) end
  return 0
end
for first = 2, #ARGV, 1000 do
  local pairs_ = {}
  for i = first, math.min(first + 999, #ARGV) do
    pairs_[#pairs_ + 1] = i - 2
    pairs_[#pairs_ + 1] = ARGV[i]
  end
  redis.call('HSET', key, unpack(pairs_))
end
redis.call('EXPIRE', key, ttl)
return 1
