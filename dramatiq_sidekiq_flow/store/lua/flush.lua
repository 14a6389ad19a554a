-- Adds a worker process's counts to Sidekiq's stats and metrics.  Safe to send twice:
-- counts with the number of the last call are not added again.
--
-- KEYS: swf:flushed:IDENTITY, stat:processed, the same of the day, stat:failed,
--       the same of the day, metrics hashes, histograms
-- ARGV: number of this call, processed, failed, ttl of a day's stats in seconds,
--       number of metrics hashes, ttl of each in seconds, number of
--       fields, field and count of each (all go to each hash), then per
--       histogram: ttl in seconds, number of buckets, index and count of each
-- Returns: keys of another type, which are left unchanged.  Only the first write
--       can end the script with an error.

if redis.pcall('GET', KEYS[1]) == ARGV[1] then return {} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', 3600)

local refused = {}
local function add(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then refused[#refused + 1] = key end
end

for i, count in ipairs({ARGV[2], ARGV[2], ARGV[3], ARGV[3]}) do
  add('INCRBY', KEYS[1 + i], count)
  if i % 2 == 0 then redis.call('EXPIRE', KEYS[1 + i], ARGV[4]) end
end

local hashes = tonumber(ARGV[5])
local at = 6 + hashes
local fields = tonumber(ARGV[at])
for i = 1, hashes do
  local key = KEYS[5 + i]
  for field = at + 1, at + 2 * fields, 2 do add('HINCRBY', key, ARGV[field], ARGV[field + 1]) end
  redis.call('EXPIRE', key, ARGV[5 + i])
end
at = at + 2 * fields + 1

for i = 6 + hashes, #KEYS do
  local buckets = tonumber(ARGV[at + 1])
  local counts = {}
  for bucket = at + 2, at + 1 + 2 * buckets, 2 do
    counts[#counts + 1] = 'INCRBY'
    counts[#counts + 1] = 'u16'
    counts[#counts + 1] = '#' .. ARGV[bucket]
    counts[#counts + 1] = ARGV[bucket + 1]
  end
  add('BITFIELD', KEYS[i], 'OVERFLOW', 'SAT', unpack(counts))
  redis.call('EXPIRE', KEYS[i], ARGV[at])
  at = at + 2 + 2 * buckets
end
return refused
