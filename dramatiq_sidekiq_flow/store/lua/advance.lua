-- Advances a run past a finished step: takes its job out of flight, writes its
-- output to the memory, counts down barriers, and writes what follows.  One atomic
-- step, safe to send twice.
--
-- KEYS: in-flight hash, memory hash ('' = none), 'queues', 'schedule',
--       the callbacks' (see _walk), the plan's (see _plan)
-- ARGV: receipt, unit (the jid), ttl of barriers in seconds,
--       seconds that the memory outlives its run, the fields' (see _fields),
--       the callbacks',
--       index of the callback that the plan is for (1 = the top), 0 = no plan,
--       the plan's
-- Returns: {'DONE'} | {'GONE'} the receipt is not in flight: sent twice, or
--       recovered by another worker | {'PLAN', index} nothing written: that
--       callback fires, send its plan | {'EXPIRED', BARRIER} nothing written
--       | {'TYPE', key} nothing written: another type, or a barrier that is not a
--       whole number | {'STAGE', key} nothing written: stage the plan again
--
-- The memory lives as long as its run: while anything waits, as long as the
-- barriers do; when nothing is left, for its own ttl, or for what extend_ttl asked
-- for (swf:keep:MEMORY lives that long).

-- @include _walk
-- @include _fields
-- @include _plan

local in_flight, memory = KEYS[1], KEYS[2]
local receipt, unit, ttl, memory_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

if not type_is(in_flight, 'hash') then return {'TYPE', in_flight} end
if redis.call('HEXISTS', in_flight, receipt) == 0 then return {'GONE'} end

-- Reads.
local fields, a = read_fields(5)
local walked, wrong = walk(unit, 5, a, 3)
if not walked then return wrong end
a = a + 1 + walked.n
local fires = walked.fire > 0
if fires and tonumber(ARGV[a]) ~= walked.fire then return {'PLAN', walked.fire} end
local writes_fields = walked.new and fields.n > 0
if writes_fields and not type_is(memory, 'hash') then return {'TYPE', memory} end
local plan
if fires then
  plan, wrong = read_plan(5 + 3 * walked.n, a + 1, KEYS[3], KEYS[4])
  if not plan then return wrong end
end

-- Writes. The gate comes first: it passes when Redis is out of memory, and
-- after it the rest of the script does, too.
redis.call('HDEL', in_flight, receipt)
if writes_fields then write_fields(memory, fields) end
for _, count in ipairs(walked.counts) do count_down(count, RELEASED_TTL, ttl) end
if plan then write_plan(plan) end
prolong_waiting(walked, ttl)
if memory ~= '' and walked.new then
  local left, wanted = redis.call('TTL', memory), memory_ttl
  local waits = walked.released < walked.n
  local over = not waits and not fires
  if not over then wanted = math.max(wanted, ttl) end
  -- The lowest barrier waits for all of the run, siblings with a delay too.
  if waits then wanted = math.max(wanted, redis.call('TTL', KEYS[2 + 3 * walked.n])) end
  if left ~= -2 and (over or left < wanted - SLACK) then
    redis.call('EXPIRE', memory, math.max(wanted, redis.call('TTL', 'swf:keep:' .. memory)))
  end
end
return {'DONE'}
