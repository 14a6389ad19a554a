-- Read steps of a stored chain, and keep chains alive whose run moves.
--
-- KEYS: swf:callbacks:SHA256 to read from, then others to keep alive only
-- ARGV: ttl in seconds, index of the first step, most steps ('0' = none),
--       bytes after which no further one is read
-- Returns: the values from that index on; none where there are none

local ttl = tonumber(ARGV[1])
for _, key in ipairs(KEYS) do
  local left = redis.call('TTL', key)
  -- An hour of slack saves a write for every step.
  if left >= 0 and left < ttl - 3600 then redis.call('EXPIRE', key, ttl) end
end
local found, size = {}, 0
for i = tonumber(ARGV[2]), ARGV[2] + ARGV[3] - 1 do
  local value = redis.call('HGET', KEYS[1], string.format('%d', i))
  if not value then break end
  size = size + #value
  if #found > 0 and size > tonumber(ARGV[4]) then break end
  found[#found + 1] = value
end
return found
