-- Shared by advance and start: reads a plan's arguments, then writes it.
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
-- A plan too large for one script was staged as a list (stage.lua).  Here it is
-- only committed: the list lives from now on, and its ID is in `swf:fanouts`,
-- so any process can push what it holds (pour.lua).
--
-- read_plan  -> plan, or nil and an error reply (nothing is written)
-- write_plan -> writes it; every type was seen before, so nothing can fail

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

-- A whole number as DECR and INCRBY take it, small enough for Lua; nil for all else.
local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end

local function read_plan(k, a, QUEUES, SCHEDULE)
  local plan = {barriers = {}, queues = {}, QUEUES = QUEUES, SCHEDULE = SCHEDULE}
  local n = tonumber(ARGV[a]); a = a + 1
  for i = 1, n do
    plan.barriers[i] = {KEYS[k], KEYS[k + 1], ARGV[a], ARGV[a + 1], ARGV[a + 2]}
    k = k + 2; a = a + 3
  end
  n = tonumber(ARGV[a]); a = a + 1
  if n > 0 and not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
  for i = 1, n do
    local count = tonumber(ARGV[a + 1])
    plan.queues[i] = {KEYS[k], ARGV[a], a + 2, a + 1 + count}
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
    local held = redis.call('TYPE', list).ok
    if held ~= 'none' and held ~= 'list' then return nil, {'TYPE', list} end
    if redis.call('LLEN', list) ~= tonumber(ARGV[a + 1]) then return nil, {'STAGE', list} end
    if not type_is(fanouts, 'zset') then return nil, {'TYPE', fanouts} end
    for i = a + 3, a + 2 + tonumber(ARGV[a + 2]) do
      if ARGV[i] == '' then
        if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
      else
        if not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
        if not type_is('queue:' .. ARGV[i], 'list') then return nil, {'TYPE', 'queue:' .. ARGV[i]} end
      end
    end
    plan.fanout = {list, fanouts, redis.call('TIME')[1], ARGV[a]}
  end
  return plan
end

local function write_plan(plan)
  for _, b in ipairs(plan.barriers) do
    redis.call('SETEX', b[1], b[3], b[4])
    redis.call('SETEX', b[2], b[3], b[5])
  end
  for _, q in ipairs(plan.queues) do
    redis.call('SADD', plan.QUEUES, q[2])
    -- unpack has a limit of some thousands
    for first = q[3], q[4], 1000 do
      redis.call('LPUSH', q[1], unpack(ARGV, first, math.min(first + 999, q[4])))
    end
  end
  for first = plan.first_scheduled, plan.last_scheduled, 1000 do
    redis.call('ZADD', plan.SCHEDULE, unpack(ARGV, first, math.min(first + 999, plan.last_scheduled)))
  end
  if plan.fanout then
    redis.call('PERSIST', plan.fanout[1])
    redis.call('ZADD', plan.fanout[2], plan.fanout[3], plan.fanout[4])
  end
end
-- A job is done: take it out of flight, keep its output, walk its callback
-- stack, and write what follows.  One step, safe to send twice.
--
-- KEYS: in-flight hash, memory hash ('' = none), 'queues', 'schedule',
--       per callback from the top: BARRIER, BARRIER_ran, BARRIER:u
--       then the plan's (see _plan)
-- ARGV: receipt, unit (the jid), ttl of barriers in seconds,
--       seconds that the memory outlives its run, number of fields, per field: name, JSON
--       number of callbacks, per callback: kind
--         'f' fires a continuation       (stop there)
--         'n' has none and propagates    (count the next one down)
--         's' has none, does not propagate (stop)
--       index of the callback that the plan is for (1 = the top), 0 = no plan
--       then the plan's
-- Returns: {'DONE'} | {'GONE'} the receipt is not in flight: sent twice, or
--       recovered by another worker | {'PLAN', index} nothing written: that
--       callback fires, send its plan | {'EXPIRED', BARRIER} nothing written
--       | {'TYPE', key} nothing written: another type, or a barrier that is no
--       whole number | {'STAGE', key} nothing written: stage the plan again
--
-- The set BARRIER:u holds the units that a barrier has counted: the jid of a
-- child, or the barrier's id of a finished inner group.  So a job that comes
-- twice counts once.
--
-- The memory lives as long as its run: while anything waits, as long as the
-- barriers do; when nothing is left, its own ttl, or what extend_ttl asked for
-- (swf:keep:MEMORY lives that long).

local RELEASED_TTL = 86400

local a, k = 1, 4
local function arg() a = a + 1; return ARGV[a - 1] end

local in_flight, memory = KEYS[1], KEYS[2]
local receipt, unit, ttl, memory_ttl = arg(), arg(), tonumber(arg()), tonumber(arg())

if not type_is(in_flight, 'hash') then return {'TYPE', in_flight} end
if redis.call('HEXISTS', in_flight, receipt) == 0 then return {'GONE'} end

local n_fields = tonumber(arg())
local first_field = a
a = a + 2 * n_fields

-- Reads. `counts` are the barriers to count down, in order.
local counts, fire, new = {}, 0, true
local n = tonumber(arg())
local first_kind = a
a = a + n
for i = 1, n do
  local barrier, ran, units = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  k = k + 3
  local kind = ARGV[first_kind + i - 1]
  if not type_is(barrier, 'string') then return {'TYPE', barrier} end
  if not type_is(ran, 'string') then return {'TYPE', ran} end
  if not type_is(units, 'set') then return {'TYPE', units} end
  local value, marker = redis.call('GET', barrier), redis.call('GET', ran)
  if not value or not marker then return {'EXPIRED', barrier} end
  value, marker = whole(value), whole(marker)
  if not value then return {'TYPE', barrier} end
  if not marker then return {'TYPE', ran} end
  if marker ~= -1 or redis.call('SISMEMBER', units, unit) == 1 then
    if i == 1 then new = false end
    break
  end
  local released = value - 1 <= 0
  counts[#counts + 1] = {barrier, ran, units, unit, released, value}
  if not released then break end
  if kind == 'f' then fire = i; break end
  if kind == 's' then break end
  unit = barrier
end
k = 4 + 3 * n + 1

local planned = tonumber(arg())
if fire > 0 and planned ~= fire then return {'PLAN', fire} end
if new and n_fields > 0 and not type_is(memory, 'hash') then return {'TYPE', memory} end
local plan
if fire > 0 then
  local wrong
  plan, wrong = read_plan(k, a, KEYS[3], KEYS[4])
  if not plan then return wrong end
end

-- Writes. The gate comes first: it passes when Redis is out of memory, and
-- after it the rest of the script does, too.
redis.call('HDEL', in_flight, receipt)
if new and n_fields > 0 then
  local last = first_field + 2 * n_fields - 1
  for first = first_field, last, 1000 do
    redis.call('HSET', memory, unpack(ARGV, first, math.min(first + 999, last)))
  end
end
for _, c in ipairs(counts) do
  if c[5] then
    -- Released: kept for a day, for a duplicate that comes late.
    redis.call('SETEX', c[1], RELEASED_TTL, c[6] - 1)
    redis.call('SETEX', c[2], RELEASED_TTL, 0)
    redis.call('UNLINK', c[3])
  else
    redis.call('DECR', c[1])
    redis.call('SADD', c[3], c[4])
    -- As long as the barrier, which may wait for a child with a long delay.
    if redis.call('TTL', c[3]) < 0 then redis.call('EXPIRE', c[3], math.max(ttl, redis.call('TTL', c[1]))) end
  end
end
if plan then write_plan(plan) end

-- Barriers that still wait are kept alive as long as their jobs move; an hour
-- of slack saves writing for every child of a large group.
local done = 0
for _, c in ipairs(counts) do if c[5] then done = done + 1 end end
for i = done + 1, n do
  local barrier, ran, units = KEYS[1 + 3 * i + 1], KEYS[1 + 3 * i + 2], KEYS[1 + 3 * i + 3]
  if redis.call('TTL', barrier) < ttl - 3600 then
    redis.call('EXPIRE', barrier, ttl)
    redis.call('EXPIRE', ran, ttl)
    redis.call('EXPIRE', units, ttl)
  end
end
if memory ~= '' and new then
  local left = redis.call('TTL', memory)
  local over = done == n and fire == 0
  local wanted = memory_ttl
  if not over then
    wanted = math.max(wanted, ttl)
    -- The lowest barrier waits for all of the run, siblings with a delay too.
    if done < n then wanted = math.max(wanted, redis.call('TTL', KEYS[1 + 3 * n + 1])) end
  end
  if left ~= -2 and (over or left < wanted - 3600) then
    redis.call('EXPIRE', memory, math.max(wanted, redis.call('TTL', 'swf:keep:' .. memory)))
  end
end
return {'DONE'}
