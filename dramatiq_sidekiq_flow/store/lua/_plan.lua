-- The plan for the continuation of a step, or for the first jobs of a run: reads it
-- from the arguments, then writes it.
--
-- In KEYS, from k on:  1 per barrier (its id; BARRIER_ran is written, too), then
--                      1 per queue list, then of a fan-out: swf:fanout:ID, 'swf:fanouts'
-- In ARGV, from a on:  number of barriers; per barrier: ttl, value (0 = made released)
--                      number of queues;   per queue: n, n payloads
--                      number of scheduled; per job: score, payload
--                      number of fan-outs (0 or 1), then of it: ID, how many
--                      elements it has, how many queues it goes to, their names
--                      ('' = `schedule`)
--                      A number that is left out at the end is 0.
-- QUEUES and SCHEDULE are the set and the zset that all plans write.
--
-- may_keep(keep, length, name) -> keep if a queue of that length is empty and not paused, else nil
-- read_plan(k, a, keep, parked) -> the plan, or nil and an error reply:
--                      {'TYPE', key} | {'STAGE', key} the list of the fan-out is gone
--                      | an error if the user may not write the jobs
--                      keep: nil, or where to keep the job of a plan that has no other:
--                      {hash, receipt}.  It is kept there, instead of pushed, if
--                      its queue is empty and not in the set PAUSED; then plan.kept is keep
--                      parked: nil, or the record of a paused run, whose jobs are parked
-- park_plan(plan): parks its jobs
-- write_plan(plan): cannot fail, since read_plan has checked all types
--
-- A plan that is too large for one script was staged as a list (fanouts.py).  It is
-- only committed here: the list no longer expires, and its ID is in `swf:fanouts`, so
-- any process can push its jobs (pour.lua).

-- @include _types
-- @include _rights
-- @include _slices
-- @include _parked

local QUEUES, SCHEDULE, PAUSED = 'queues', 'schedule', 'paused'

local function may_keep(keep, length, name)
  -- A key of another type pauses nothing.
  if keep and length == 0 and redis.pcall('SISMEMBER', PAUSED, name) ~= 1 then return keep end
end

local function read_plan(k, a, keep, parked)
  local refused = parked and cannot_park(parked)
  if refused then return nil, refused end
  if parked then keep = nil end
  local n = tonumber(ARGV[a] or 0); a = a + 1
  local plan = {barriers = n, barrier_key = k, barrier_argument = a, queues = {}, parked = parked}
  k = k + n; a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  for i = 1, n do
    local key, count = KEYS[k], tonumber(ARGV[a])
    local name = string.sub(key, 7)
    local length, listed, wrong
    length, wrong = checked('LLEN', key)
    if wrong then return nil, wrong end
    plan.kept = may_keep(keep, length, name)
    if plan.kept then
      wrong = denied('HSET', keep.hash, keep.receipt, '')
    else
      listed, wrong = checked('SISMEMBER', QUEUES, name)
      if listed == 0 then wrong = denied('SADD', QUEUES, name) end
      wrong = wrong or denied('LPUSH', key, '')
    end
    if wrong then return nil, wrong end
    plan.queues[i] = {key = key, name = name, first = a + 1, last = a + count, listed = listed == 1}
    k = k + 1; a = a + 1 + count
  end
  n = tonumber(ARGV[a] or 0); a = a + 1
  plan.first_scheduled, plan.last_scheduled = a, a + 2 * n - 1
  if n > 0 then
    if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
    local wrong = denied('ZADD', SCHEDULE, '0', '')
    if wrong then return nil, wrong end
  end
  a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
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

local function park_plan(plan)
  local entries = {}
  for _, queue in ipairs(plan.queues) do
    for i = queue.first, queue.last do entries[#entries + 1] = 'q' .. queue.name .. '\0' .. ARGV[i] end
  end
  for i = plan.first_scheduled, plan.last_scheduled, 2 do
    entries[#entries + 1] = 's' .. ARGV[i] .. '\0' .. ARGV[i + 1]
  end
  if plan.fanout then
    redis.call('EXPIRE', plan.fanout.list, PARKED_TTL)
    entries[#entries + 1] = 'f' .. plan.fanout.id .. '\0"' .. string.sub(plan.parked, 10) .. '"'
  end
  park(plan.parked, 'RPUSH', entries)
end

local function write_plan(plan)
  local k, a = plan.barrier_key, plan.barrier_argument
  for _ = 1, plan.barriers do
    local ttl = plan.parked and math.max(PARKED_TTL, tonumber(ARGV[a])) or ARGV[a]
    redis.call('SETEX', KEYS[k], ttl, ARGV[a + 1])
    redis.call('SETEX', KEYS[k] .. '_ran', ttl, ARGV[a + 1] == '0' and '0' or '-1')
    k = k + 1; a = a + 2
  end
  if plan.parked then return park_plan(plan) end
  for _, queue in ipairs(plan.queues) do
    if plan.kept then
      redis.call('HSET', plan.kept.hash, plan.kept.receipt, ARGV[queue.first])
    else
      if not queue.listed then redis.call('SADD', QUEUES, queue.name) end
      call_in_slices('LPUSH', queue.key, ARGV, queue.first, queue.last)
    end
  end
  call_in_slices('ZADD', SCHEDULE, ARGV, plan.first_scheduled, plan.last_scheduled)
  if plan.fanout then
    redis.call('PERSIST', plan.fanout.list)
    redis.call('ZADD', plan.fanout.fanouts, plan.fanout.now, plan.fanout.id)
  end
end
