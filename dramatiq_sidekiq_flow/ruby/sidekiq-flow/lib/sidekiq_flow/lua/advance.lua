-- Advances a run past a finished step: takes its job out of flight, writes its
-- output to the memory, counts down barriers, and writes the plan of the
-- continuation.  Atomic, and safe to send twice.
--
-- KEYS: in-flight hash, memory hash ('' = none), 'queues', 'schedule',
--       the callbacks' (see _walk), the plan's (see _plan)
-- ARGV: receipt, unit (the jid), ttl of barriers in seconds,
--       seconds that the memory is kept after its run, the fields' (see _fields),
--       the callbacks',
--       index of the callback that the plan is for (1 = the top), 0 = no plan,
--       the plan's
-- Returns: {'DONE'} | {'GONE'} the receipt is not in flight: sent twice, or
--       recovered by another worker | {'PLAN', index} nothing written: that
--       callback fires, send its plan | {'EXPIRED', BARRIER} nothing written
--       | {'TYPE', key} nothing written: another type, or a barrier that is not a
--       whole number | {'STAGE', key} nothing written: stage the plan again
--
-- The memory lives as long as its run: while a barrier waits, as long as the
-- barriers; at the end of the run, for its own ttl, or for the ttl that extend_ttl
-- set, if that is longer (swf:keep:MEMORY lives that long).

-- The walk over a step's callback stack: which barriers the step counts down,
-- and which callback then fires.  advance.lua walks for a step on a Sidekiq queue,
-- count.lua for one on another broker, whose callbacks have a fourth key.
--
-- In KEYS, from k on, width (3 or 4) per callback from the top:
--   BARRIER, BARRIER_ran, BARRIER:u, and BARRIER:f (see count.lua) if width is 4
-- In ARGV, from a on: number of callbacks, per callback: kind
--   'f' fires a continuation         (the walk stops there)
--   'n' has none and propagates      (count down the next one, too)
--   's' has none, does not propagate (the walk stops)
--
-- walk(unit, k, a, width) -> a table, or nil and an error reply: {'TYPE', key}
--                            | {'EXPIRED', BARRIER}.  It writes nothing.  The table has
--   n         number of callbacks
--   counts    barriers to count down, in order; all are released, but the last may wait
--   released  number of them that are released
--   fire      index of the callback that fires (1 = the top), 0 = none
--   again     set if this unit released the barrier of that callback before (width 4)
--   new       false if the top barrier counted this step before
-- count_down(count, kept, ttl): writes one of counts, and keeps a released barrier for
--                            kept seconds.  BARRIER:u of one that waits lives for ttl
--                            seconds, or as long as the barrier if that is longer
-- prolong_waiting(walked, ttl): prolongs barriers that still wait, with all their keys,
--                            to ttl seconds
-- RELEASED_TTL: a day.  A released barrier is kept so long in case a duplicate arrives late
--
-- The set BARRIER:u holds the units that a barrier has counted: the jid of a
-- child, or the barrier's id of a finished inner group.  So a job that is
-- delivered twice counts once.

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600

local RELEASED_TTL = 86400

local function walk(unit, k, a, width)
  local n = tonumber(ARGV[a])
  local walked = {n = n, first_key = k, width = width, counts = {}, released = 0, fire = 0, again = false, new = true}
  for i = 1, n do
    local barrier, ran, units = KEYS[k], KEYS[k + 1], KEYS[k + 2]
    local fired = width == 4 and KEYS[k + 3]
    local kind = ARGV[a + i]
    if not type_is(barrier, 'string') then return nil, {'TYPE', barrier} end
    if not type_is(ran, 'string') then return nil, {'TYPE', ran} end
    if fired and not type_is(fired, 'string') then return nil, {'TYPE', fired} end
    if not type_is(units, 'set') then return nil, {'TYPE', units} end
    local releaser = fired and redis.call('GET', fired)
    if releaser then
      if i == 1 then walked.new = false end
      -- The unit that released the barrier repeats its walk.
      if releaser ~= unit then break end
    else
      local value, marker = redis.call('GET', barrier), redis.call('GET', ran)
      if not value or not marker then return nil, {'EXPIRED', barrier} end
      value, marker = whole(value), whole(marker)
      if not value then return nil, {'TYPE', barrier} end
      if not marker then return nil, {'TYPE', ran} end
      if marker ~= -1 or redis.call('SISMEMBER', units, unit) == 1 then
        if i == 1 then walked.new = false end
        break
      end
      local released = value <= 1
      walked.counts[#walked.counts + 1] = {
        barrier = barrier, ran = ran, units = units, fired = fired, unit = unit, value = value, released = released,
      }
      if not released then break end
      walked.released = walked.released + 1
    end
    if kind == 'f' then
      walked.fire, walked.again = i, releaser
      break
    end
    if kind == 's' then break end
    unit = barrier
    k = k + width
  end
  return walked
end

local function count_down(count, kept, ttl)
  if count.released then
    redis.call('SETEX', count.barrier, kept, count.value - 1)
    redis.call('SETEX', count.ran, kept, 0)
    redis.call('UNLINK', count.units)
    return
  end
  redis.call('DECR', count.barrier)
  redis.call('SADD', count.units, count.unit)
  if redis.call('TTL', count.units) < 0 then
    -- As long as the barrier, which may wait for a child with a long delay.
    redis.call('EXPIRE', count.units, math.max(ttl, redis.call('TTL', count.barrier)))
  end
end

local function prolong_waiting(walked, ttl)
  for i = walked.released, walked.n - 1 do
    local k = walked.first_key + walked.width * i
    if redis.call('TTL', KEYS[k]) < ttl - SLACK then
      redis.call('EXPIRE', KEYS[k], ttl)
      redis.call('EXPIRE', KEYS[k + 1], ttl)
      redis.call('EXPIRE', KEYS[k + 2], ttl)
    end
  end
end
-- Fields of a run's memory in the arguments.
--
-- In ARGV, from a on: number of fields, per field: name, JSON
--
-- read_fields(a)            -> the fields, and the index behind them
-- write_fields(key, fields): writes them; the caller has checked the type of the key

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local function read_fields(a)
  local n = tonumber(ARGV[a])
  local last = a + 2 * n
  return {n = n, first = a + 1, last = last}, last + 1
end

local function write_fields(key, fields)
  call_in_slices('HSET', key, ARGV, fields.first, fields.last)
end
-- The plan for the continuation of a step, or for the first jobs of a run: reads it
-- from the arguments, then writes it.
--
-- In KEYS, from k on:  2 per barrier (id, id_ran), then 1 per queue list,
--                      then of a fan-out: swf:fanout:ID, 'swf:fanouts'
-- In ARGV, from a on:  number of barriers; per barrier: ttl, value, ran
--                      number of queues;   per queue: name, n, n payloads
--                      number of scheduled; per job: score, payload
--                      number of fan-outs (0 or 1), then of it: ID, how many
--                      elements it has, how many queues it goes to, their names
--                      ('' = `schedule`)
-- QUEUES and SCHEDULE are the keys of the set and the zset.
--
-- read_plan(k, a, QUEUES, SCHEDULE) -> the plan, or nil and an error reply: {'TYPE', key}
--                      | {'STAGE', key} the list of the fan-out is gone
-- write_plan(plan): cannot fail, since read_plan has checked all types
--
-- A plan that is too large for one script was staged as a list (stage.lua).  It is
-- only committed here: the list no longer expires, and its ID is in `swf:fanouts`, so
-- any process can push its jobs (pour.lua).


local function read_plan(k, a, QUEUES, SCHEDULE)
  local n = tonumber(ARGV[a]); a = a + 1
  local plan = {QUEUES = QUEUES, SCHEDULE = SCHEDULE, barriers = n, barrier_key = k, barrier_argument = a, queues = {}}
  k = k + 2 * n; a = a + 3 * n
  n = tonumber(ARGV[a]); a = a + 1
  if n > 0 and not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
  for i = 1, n do
    local count = tonumber(ARGV[a + 1])
    plan.queues[i] = {key = KEYS[k], name = ARGV[a], first = a + 2, last = a + 1 + count}
    if not type_is(KEYS[k], 'list') then return nil, {'TYPE', KEYS[k]} end
    k = k + 1; a = a + 2 + count
  end
  n = tonumber(ARGV[a]); a = a + 1
  plan.first_scheduled, plan.last_scheduled = a, a + 2 * n - 1
  if n > 0 and not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
  a = a + 2 * n
  n = tonumber(ARGV[a]); a = a + 1
  if n > 0 then
    local list, fanouts = KEYS[k], KEYS[k + 1]
    if not type_is(list, 'list') then return nil, {'TYPE', list} end
    if redis.call('LLEN', list) ~= tonumber(ARGV[a + 1]) then return nil, {'STAGE', list} end
    if not type_is(fanouts, 'zset') then return nil, {'TYPE', fanouts} end
    for i = a + 3, a + 2 + tonumber(ARGV[a + 2]) do
      local name = ARGV[i]
      if name == '' then
        if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
      else
        local queue = 'queue:' .. name
        if not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
        if not type_is(queue, 'list') then return nil, {'TYPE', queue} end
      end
    end
    plan.fanout = {list = list, fanouts = fanouts, now = redis.call('TIME')[1], id = ARGV[a]}
  end
  return plan
end

local function write_plan(plan)
  local k, a = plan.barrier_key, plan.barrier_argument
  for _ = 1, plan.barriers do
    redis.call('SETEX', KEYS[k], ARGV[a], ARGV[a + 1])
    redis.call('SETEX', KEYS[k + 1], ARGV[a], ARGV[a + 2])
    k = k + 2; a = a + 3
  end
  for _, queue in ipairs(plan.queues) do
    redis.call('SADD', plan.QUEUES, queue.name)
    call_in_slices('LPUSH', queue.key, ARGV, queue.first, queue.last)
  end
  call_in_slices('ZADD', plan.SCHEDULE, ARGV, plan.first_scheduled, plan.last_scheduled)
  if plan.fanout then
    redis.call('PERSIST', plan.fanout.list)
    redis.call('ZADD', plan.fanout.fanouts, plan.fanout.now, plan.fanout.id)
  end
end

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

-- Writes.  HDEL, the gate, comes first: Redis allows it when it is out of memory,
-- and after it also allows the other writes of the script.
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
  -- The lowest barrier waits for the whole run, including siblings with a delay.
  if waits then wanted = math.max(wanted, redis.call('TTL', KEYS[2 + 3 * walked.n])) end
  if left ~= -2 and (over or left < wanted - SLACK) then
    redis.call('EXPIRE', memory, math.max(wanted, redis.call('TTL', 'swf:keep:' .. memory)))
  end
end
return {'DONE'}
