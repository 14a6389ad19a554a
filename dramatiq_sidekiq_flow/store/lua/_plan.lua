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
