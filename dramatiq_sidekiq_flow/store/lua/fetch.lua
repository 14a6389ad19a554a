-- Moves a batch of jobs from a queue into flight.
--
-- KEYS: queue list, in-flight hash, swf:workers, 'paused' (optional: a caller
--       that cannot pause a queue leaves it out), swf:arrived:QUEUE (optional)
-- ARGV: member (the worker process and queue), receipt base, maximum jobs,
--       number of them that begin at once because threads are idle,
--       '1' in a burst: jobs end faster than each could be marked, else '',
--       bytes after which no further job is fetched (the first one always is)
-- Returns: {lengths in bytes, all payloads in one string, n, suffix}, since a reply
--       of many parts costs the client more than the jobs.  The receipts of the
--       first n are BASE:1, BASE:2, ... (begun), those after them have the
--       suffix: '?' not begun (begin.lua marks it later), '~' perhaps begun.
--       If the same base moved jobs before (sent twice), those jobs; none if the
--       first of them has left flight (delivered late).
--       False if the worker is not registered (it was declared dead): beat first,
--       then fetch.  {'PAUSED'} if the queue is paused: nothing was moved.  (No jobs,
--       if it is empty as well.)
--       {'TYPE', key} nothing was moved.
--
-- The list swf:arrived:QUEUE holds a job that an idle worker's BLMOVE has taken, until the
-- fetch behind it runs.  Jobs of a worker that was lost in between are fetched by any other.
--
-- The sorted set swf:fetched:MEMBER holds the bases of the last fetches that
-- moved something.

-- @include _types
-- @include _rights
-- @include _slices

-- Maximum threads of one process that fetch from a queue at the same time.  A base
-- that is older than this many others counts as used.
local REMEMBERED = 64

local base, wanted = ARGV[2], tonumber(ARGV[3])
local fetched = 'swf:fetched:' .. ARGV[1]

local function reply(payloads, begun, suffix)
  local lengths = {}
  for i, payload in ipairs(payloads) do lengths[i] = #payload end
  -- A single payload, which may be large, is not copied.
  local joined = #payloads == 1 and payloads[1] or table.concat(payloads)
  return {table.concat(lengths, ' '), joined, begun, suffix}
end

-- Puts jobs that have arrived back to the end of the queue that is fetched first: it may be
-- paused, and others may have arrived.  This wakes another idle worker if one is left there.
local function put_back_arrived()
  local arrived = KEYS[5] and redis.pcall('LLEN', KEYS[5])
  if type(arrived) ~= 'number' or arrived == 0 or not type_is(KEYS[1], 'list') then return end
  local refused = denied('RPUSH', KEYS[1], '')
  if refused then return refused end
  for _ = 1, arrived do redis.call('RPUSH', KEYS[1], redis.call('RPOP', KEYS[5])) end
end

local not_put_back = put_back_arrived()
if not_put_back then return not_put_back end
local number = string.match(base, '^%x+$') and #base <= 13 and tonumber(base, 16)
local newest, refused = {}, nil
if number then
  newest, refused = checked('ZRANGE', fetched, -1, -1, 'WITHSCORES')
  if refused then return refused end
end
-- Most fetches are newer than all before them.
local latest = tonumber(newest[2])
local fresh = latest and number > latest
local registered, unreadable = checked('ZSCORE', KEYS[3], ARGV[1])
local length, other = checked('LLEN', KEYS[1])
-- A push wakes each idle process of its queue, and most of them come too late: they end here.
if fresh and registered and length == 0 then return reply({}, 0, '?') end

-- Sent twice: return the jobs, with the receipts of the first call.
local before, begun, suffix = {}, 0, '?'
for i = 1, wanted do
  local receipt = base .. ':' .. i
  local found
  found, refused = checked('HMGET', KEYS[2], receipt, receipt .. '?', receipt .. '~')
  if refused then return refused end
  local payload = found[1] or found[2] or found[3]
  if not payload then break end
  before[i] = payload
  if found[1] then begun = i else suffix = found[2] and '?' or '~' end
end
if before[1] then return reply(before, begun, suffix) end
-- Delivered late, after the first of its jobs had left flight: do not use these
-- receipts again.  A repeated command for the earlier job of a receipt would take
-- the new job out of flight.
if latest and not fresh then
  if redis.call('ZSCORE', fetched, base) then return reply({}, 0, suffix) end
  local lowest = redis.call('ZRANGE', fetched, -REMEMBERED, -REMEMBERED, 'WITHSCORES')[2]
  if lowest and number < tonumber(lowest) then return reply({}, 0, suffix) end
end

if unreadable then return unreadable end
if not registered then return false end
-- A key of another type pauses nothing.
if KEYS[4] and redis.pcall('SISMEMBER', KEYS[4], string.sub(KEYS[1], 7)) == 1 then return {'PAUSED'} end
if other then return other end
if length == 0 then return reply({}, 0, suffix) end

-- RPOP comes first, since a full Redis takes it; a user who may not call HSET would
-- lose the jobs after it.
refused = denied('HSET', KEYS[2], base, '')
if refused then return refused end

begun = tonumber(ARGV[4])
suffix = ARGV[5] == '1' and '~' or '?'
local payloads, size, most = {}, 0, tonumber(ARGV[6])
wanted = math.min(wanted, length)
-- One at a time, since the length of an element is not known in advance.
while #payloads < wanted and size <= most do
  payloads[#payloads + 1] = redis.call('RPOP', KEYS[1])
  if #payloads > 1 then size = size + #payloads[#payloads] end
end
local fields = {}
for i, payload in ipairs(payloads) do
  fields[#fields + 1] = base .. ':' .. i .. (i > begun and suffix or '')
  fields[#fields + 1] = payload
end
call_in_slices('HSET', KEYS[2], fields, 1, #fields)
if number then
  redis.call('ZADD', fetched, number, base)
  -- Now and then: up to 15 more are kept meanwhile.
  if not latest or math.floor(number / 16) > math.floor(latest / 16) then
    redis.call('ZREMRANGEBYRANK', fetched, 0, -REMEMBERED - 1)
  end
  redis.call('EXPIRE', fetched, 3600)
end
return reply(payloads, math.min(begun, #payloads), suffix)
