-- Shared by advance and start: reads a plan's arguments, then writes it.
--
-- In KEYS, from k on:  2 per barrier (id, id_ran), then 1 per queue list,
--                      then 1 per staged chunk (a list of payloads)
-- In ARGV, from a on:  number of barriers; per barrier: ttl, value, ran
--                      number of queues;   per queue: name, n, n payloads
--                      number of scheduled; per job: score, payload
--                      number of chunks;   per chunk: queue name ('' = the
--                      chunk holds pairs of score, payload for `schedule`)
-- QUEUES and SCHEDULE are the keys of the set and the zset.
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
  local plan = {barriers = {}, queues = {}, chunks = {}, QUEUES = QUEUES, SCHEDULE = SCHEDULE}
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
  for i = 1, n do
    plan.chunks[i] = {KEYS[k], ARGV[a]}
    local held = redis.call('TYPE', KEYS[k]).ok
    if held == 'none' then return nil, {'STAGE', KEYS[k]} end
    if held ~= 'list' then return nil, {'TYPE', KEYS[k]} end
    if ARGV[a] ~= '' and not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
    local to, wanted = 'queue:' .. ARGV[a], 'list'
    if ARGV[a] == '' then to, wanted = SCHEDULE, 'zset' end
    if not type_is(to, wanted) then return nil, {'TYPE', to} end
    k = k + 1; a = a + 1
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
  for _, c in ipairs(plan.chunks) do
    local payloads = redis.call('LRANGE', c[1], 0, -1)
    local command, to = 'LPUSH', 'queue:' .. c[2]
    if c[2] == '' then command, to = 'ZADD', plan.SCHEDULE else redis.call('SADD', plan.QUEUES, c[2]) end
    for first = 1, #payloads, 1000 do
      redis.call(command, to, unpack(payloads, first, math.min(first + 999, #payloads)))
    end
    redis.call('DEL', c[1])
  end
end
