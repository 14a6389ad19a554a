-- Reads steps of a stored chain, and prolongs stored chains whose run advances.
--
-- KEYS: swf:callbacks:SHA256 to read from, then others that are only prolonged
-- ARGV: ttl in seconds, index of the first step, maximum steps ('0' = none),
--       bytes after which no further step is read, size in bytes from which a
--       value is not read (left out: all are)
-- Returns: the values from that index on; none if there are none; {nil} if the
--       first one is too large for a script: read it with HGET

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
-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600

local ttl = tonumber(ARGV[1])
for _, key in ipairs(KEYS) do prolong_volatile(key, ttl, SLACK) end
local found, size, large = {}, 0, tonumber(ARGV[5] or math.huge)
for i = tonumber(ARGV[2]), ARGV[2] + ARGV[3] - 1 do
  local index = string.format('%d', i)
  local length = redis.call('HSTRLEN', KEYS[1], index)
  size = size + length
  if #found > 0 and size > tonumber(ARGV[4]) then break end
  if length >= large then
    if #found == 0 then return {false} end
    break
  end
  local value = redis.call('HGET', KEYS[1], index)
  if not value then break end
  found[#found + 1] = value
end
return found
