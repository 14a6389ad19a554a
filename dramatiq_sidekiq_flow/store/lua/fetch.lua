-- Move a batch of jobs from a queue into flight.
--
-- KEYS: queue list, in-flight hash, swf:workers, 'paused' (not named by who
--       has no way to pause a queue)
-- ARGV: member (the worker process and queue), receipt base, how many,
--       SHA1 of the payload that the caller has seen at the end of the queue
--       while it waited ('' = none): it is not sent again, its length is -1
-- Returns: {lengths in bytes, all payloads in one string}: one reply of many
--       parts costs the client more than the jobs.  Receipts are BASE:1,
--       BASE:2, ...  Where the same base moved some before (sent twice), those.
--       False where the worker is not registered (it was declared dead): beat
--       first, then fetch.  {'PAUSED'} where the queue is: nothing was moved.

local function reply(payloads)
  local lengths = {}
  for i, payload in ipairs(payloads) do lengths[i] = #payload end
  if ARGV[4] ~= '' and payloads[1] and redis.sha1hex(payloads[1]) == ARGV[4] then
    lengths[1], payloads[1] = -1, ''
  end
  return {table.concat(lengths, ' '), table.concat(payloads)}
end

local base, wanted = ARGV[2], tonumber(ARGV[3])
if redis.call('HEXISTS', KEYS[2], base .. ':1') == 1 then
  local before = {}
  for i = 1, wanted do
    local payload = redis.call('HGET', KEYS[2], base .. ':' .. i)
    if not payload then break end
    before[i] = payload
  end
  return reply(before)
end
if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then return false end
-- A key of another type pauses nothing.
if KEYS[4] and redis.pcall('SISMEMBER', KEYS[4], string.sub(KEYS[1], 7)) == 1 then return {'PAUSED'} end
local payloads = redis.call('RPOP', KEYS[1], wanted)
if not payloads then return reply({}) end
for first = 1, #payloads, 500 do
  local pairs_ = {}
  for i = first, math.min(first + 499, #payloads) do
    pairs_[#pairs_ + 1] = base .. ':' .. i
    pairs_[#pairs_ + 1] = payloads[i]
  end
  redis.call('HSET', KEYS[2], unpack(pairs_))
end
return reply(payloads)
