-- A step will be tried again: its barriers must outlive that.
--
-- KEYS: barrier keys
-- ARGV: ttl in seconds
-- Returns: how many live longer now

local moved = 0
for i = 1, #KEYS do
  local left = redis.call('TTL', KEYS[i])
  if left ~= -2 and left < tonumber(ARGV[1]) then moved = moved + redis.call('EXPIRE', KEYS[i], ARGV[1]) end
end
return moved
