-- Starts dead steps of a run anew, with all that comes after them: takes their jobs out of
-- `dead`, writes the plan, and lets the record forget those steps.  Of a paused run, the plan
-- is parked.  ZREM is the gate, so it is safe to send twice.
--
-- KEYS: 'dead', record (see _record), memory hash ('' = none), the plan's (see _plan)
-- ARGV: seconds that the run lives from now on, number of deaths that stay in the record and that
--       no run waits for, number of steps in fallbacks that do not run;
--       number of jobs, the jobs;
--       number of ranges of steps that are forgotten, first and last step of each;
--       number of deaths that are forgotten, numbers of these steps;
--       number of steps whose trees are forgotten (see replace), these steps; the plan's
-- Returns: {'DONE'} | {'GONE'} nothing written: one of the jobs has left `dead`, or the run is
--       cancelled, or it has no record
--       | {'TAKEN', ID} nothing written: that run has the unique key, and lives
--       | {'TYPE', key} | {'STAGE', key} nothing written: stage the plan again

-- @include _types
-- @include _rights
-- @include _prolong
-- @include _record
-- @include _plan
-- @include _new_record

local dead, record, memory = KEYS[1], KEYS[2], KEYS[3]
local ttl, caught, skipped = tonumber(ARGV[1]), ARGV[2], ARGV[3]

-- The index behind a list that begins with its number of entries, each of some arguments.
local function behind(a, width) return a + 1 + tonumber(ARGV[a]) * width end

local jobs, ranges = 4, behind(4, 1)
local deaths = behind(ranges, 2)
local trees = behind(deaths, 1)
local a = behind(trees, 1)

-- Reads.
for i = jobs + 1, ranges - 1 do
  local score, wrong = checked('ZSCORE', dead, ARGV[i])
  if wrong then return wrong end
  if not score then return {'GONE'} end
end
local found, wrong = checked('HMGET', record, 'state', 'keep', 'started', 'unique')
if wrong then return wrong end
local state, keep, unique = found[1], tonumber(found[2] or '') or 604800, found[4]
if not state or state == 'cancelled' then return {'GONE'} end
if unique then
  local key = 'swf:unique:' .. unique
  local holder
  holder, wrong = checked('GET', key)
  if wrong then return wrong end
  if holds_key(record, holder) then return {'TAKEN', holder} end
  wrong = denied('SET', key, '')
  if wrong then return wrong end
end
wrong = denied('HSET', record, '', '')
if wrong then return wrong end
local plan
plan, wrong = read_plan(4, a, nil, state == 'paused' and record or nil)
if not plan then return wrong end

-- Writes.  ZREM comes first: Redis allows it when it is out of memory, and after it also
-- the others.
for i = jobs + 1, ranges - 1 do redis.call('ZREM', dead, ARGV[i]) end
write_plan(plan)
local times, done = record .. ':times', record .. ':done'
for i = ranges + 1, deaths - 1, 2 do
  local n, last = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  while n <= last do
    local bytes = n >= 1000 and n % 8 == 0 and math.floor((last - n + 1) / 8) or 0
    if bytes > 0 then
      redis.pcall('SETRANGE', done, n / 8, string.rep('\0', bytes))
    elseif n >= 1000 then
      redis.pcall('SETBIT', done, n, 0)
    else
      redis.pcall('HDEL', times, n)
    end
    n = n + math.max(1, bytes * 8)
  end
end
for i = deaths + 1, trees - 1 do redis.pcall('HDEL', record .. ':failed', ARGV[i]) end
for i = trees + 1, a - 1 do redis.pcall('HDEL', record .. ':added', ARGV[i]) end
redis.pcall('HDEL', record, 'finished')
redis.pcall('HSET', record, 'caught', caught, 'skipped', skipped)
if unique then redis.pcall('SET', 'swf:unique:' .. unique, string.sub(record, 10), 'EX', UNIQUE_TTL) end
local after = state == 'paused' and state or is_failed(record) and 'failed' or 'running'
prolong_record(record, after, ttl + keep)
if after ~= state then set_state(record, state, after, ttl + keep) end
if memory ~= '' then prolong(memory, ttl) end
return {'DONE'}
