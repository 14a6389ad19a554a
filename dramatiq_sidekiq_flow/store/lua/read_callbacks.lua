-- Reads steps of a stored chain, and prolongs stored chains whose run advances.
--
-- KEYS: swf:callbacks:SHA256 to read from, then others that are only prolonged
-- ARGV: ttl in seconds, index of the first step, maximum steps ('0' = none),
--       bytes after which no further step is read, size in bytes from which a
--       value is not read (left out: all are)
-- Returns: the values from that index on; none if there are none; {nil} if the
--       first one is too large for a script: read it with HGET
--
-- The field 'largest' holds the size of the largest value, so as many values are read
-- with one command as fit even if each has that size.  A chain that version
-- 0.1 stored has no such field: the length of each of its values is read first.

-- @include _prolong
-- @include _slack

local key, ttl, most, budget = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local index, large = tonumber(ARGV[2]), tonumber(ARGV[5] or math.huge)
for _, chain in ipairs(KEYS) do prolong_volatile(chain, ttl, SLACK) end
if most == 0 then return {} end

local found, size = {}, 0

-- Reads values while as many bytes fit as the largest of them has.
local function read_fast(largest)
  while #found < most and (#found == 0 or size + largest <= budget) do
    local fields = {}
    for i = 1, math.min(most - #found, math.max(1, math.floor((budget - size) / largest)), 1000) do
      fields[i] = string.format('%d', index + #found + i - 1)
    end
    for i, value in ipairs(redis.call('HMGET', key, unpack(fields))) do
      if not value then return found end
      found[#found + 1] = value
      size = size + #value
    end
  end
  return found
end

-- Reads the length of each value first.
local function read_each()
  for i = index, index + most - 1 do
    local field = string.format('%d', i)
    local length = redis.call('HSTRLEN', key, field)
    size = size + length
    if #found > 0 and size > budget then break end
    if length >= large then
      if #found == 0 then return {false} end
      break
    end
    local value = redis.call('HGET', key, field)
    if not value then break end
    found[#found + 1] = value
  end
  return found
end

local largest = tonumber(redis.call('HGET', key, 'largest'))
if largest and largest > 0 and largest < large and 2 * largest <= budget then return read_fast(largest) end
return read_each()
