-- A step that ran on another broker is done: keep its output, count down its
-- barriers, make the continuation's barriers, and push what goes to Sidekiq's
-- queues.  What goes to the other broker is enqueued by the caller, afterwards.
-- One step; asked again for the same unit it answers the same.
--
-- KEYS: memory hash ('' = none), 'queues', 'schedule',
--       per callback from the top: BARRIER, BARRIER_ran, BARRIER:u, BARRIER:f
--       then the plan's (see _plan)
-- ARGV: unit (the message id), ttl of barriers in seconds,
--       seconds that the memory lives on, number of fields, per field: name, JSON
--       number of callbacks, per callback: kind (as in advance)
--       index of the callback that the plan is for (1 = the top), 0 = no plan
--       '1' where something of it is still to be enqueued elsewhere, else '0'
--       then the plan's
-- Returns: {'DONE'} nothing is left to do | {'FIRE'} enqueue the rest of the
--       plan, then call `fired` | {'PLAN', index} nothing written: that
--       callback fires, send its plan | {'EXPIRED', BARRIER} nothing written
--       | {'TYPE', key} nothing written: another type, or a barrier that is no
--       whole number | {'STAGE', key} nothing written: stage the plan again
--
-- BARRIER:u holds the units counted so far (see advance).  BARRIER:f holds the
-- unit that released the barrier, for as long as its continuation may not have
-- been enqueued; then it is empty.  Only that unit is told to FIRE again.

local RELEASED_TTL = 86400

local a, k = 1, 3
local function arg() a = a + 1; return ARGV[a - 1] end

local memory = KEYS[1]
local unit, ttl, memory_ttl = arg(), arg(), arg()
local n_fields = tonumber(arg())
local first_field = a
a = a + 2 * n_fields

-- Reads. `counts` are the barriers to count down, in order.
local counts, fire, again, new = {}, 0, false, true
local n = tonumber(arg())
local first_kind = a
a = a + n
for i = 1, n do
  local barrier, ran, units, fired = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], KEYS[k + 4]
  k = k + 4
  local kind = ARGV[first_kind + i - 1]
  for _, key in ipairs({barrier, ran, fired}) do
    if not type_is(key, 'string') then return {'TYPE', key} end
  end
  if not type_is(units, 'set') then return {'TYPE', units} end
  local releaser = redis.call('GET', fired)
  if releaser then
    if i == 1 then new = false end
    if releaser ~= unit then break end
    -- This unit released it before: go the same way again.
    if kind == 'f' then fire, again = i, true; break end
    if kind == 's' then break end
  else
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
    counts[#counts + 1] = {barrier, ran, units, unit, released, value, fired}
    if not released then break end
    if kind == 'f' then fire = i; break end
    if kind == 's' then break end
  end
  unit = barrier
end
k = 3 + 4 * n + 1

local planned, elsewhere = tonumber(arg()), arg() == '1'
if fire > 0 and planned ~= fire then return {'PLAN', fire} end
if again then return {'FIRE'} end
if new and n_fields > 0 and not type_is(memory, 'hash') then return {'TYPE', memory} end
local plan
if fire > 0 then
  local wrong
  plan, wrong = read_plan(k, a, KEYS[2], KEYS[3])
  if not plan then return wrong end
end

-- Writes.  The output first, for whoever runs next.  The counts before the
-- plan: each of them is refused when Redis is out of memory, so the first one
-- fails with nothing written, and a script that has begun to write goes on.
local last = first_field + 2 * n_fields - 1
if new and n_fields > 0 then
  for first = first_field, last, 1000 do
    redis.call('HSET', memory, unpack(ARGV, first, math.min(first + 999, last)))
  end
end
if memory ~= '' and redis.call('TTL', memory) < tonumber(memory_ttl) then redis.call('EXPIRE', memory, memory_ttl) end
elsewhere = elsewhere and fire > 0
for _, c in ipairs(counts) do
  if c[5] then
    -- Kept for a day, for a duplicate that comes late; until the rest of the
    -- plan is enqueued, for as long as a barrier that waits.
    local keep = elsewhere and ttl or RELEASED_TTL
    redis.call('SETEX', c[1], keep, c[6] - 1)
    redis.call('SETEX', c[2], keep, 0)
    redis.call('UNLINK', c[3])
    if elsewhere then redis.call('SETEX', c[7], keep, c[4]) end
  else
    redis.call('DECR', c[1])
    redis.call('SADD', c[3], c[4])
    if redis.call('TTL', c[3]) < 0 then redis.call('EXPIRE', c[3], ttl) end
  end
end
if plan then write_plan(plan) end

-- Barriers that still wait are kept alive as long as their jobs move.
local done = 0
for _, c in ipairs(counts) do if c[5] then done = done + 1 end end
for i = done + 1, n do
  local first = 3 + 4 * (i - 1)
  if redis.call('TTL', KEYS[first + 1]) < tonumber(ttl) - 3600 then
    for j = 1, 3 do redis.call('EXPIRE', KEYS[first + j], ttl) end
  end
end
if elsewhere then return {'FIRE'} end
return {'DONE'}
