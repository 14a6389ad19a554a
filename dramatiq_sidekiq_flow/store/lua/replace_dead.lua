-- Lets others take the place of a step that Ruby, or a person, has put into `dead`: the step
-- stays there without its callback stack, and their plan is written, or parked if the run is
-- paused.
--
-- KEYS: 'dead', record (see _record), keys of barriers, memory and record to keep alive, the
--       plan's (see _plan)
-- ARGV: member of `dead`, payload in its place, how many keys to keep alive, seconds that
--       they live from now on, number of the step ('' = it has none), what its record holds of
--       the failure, number of steps that run in its place, the plan's
-- Returns: {'DONE'} | {'GONE'} it is in `dead` no more: sent twice, or retried
--       | {'TYPE', key} nothing written | {'STAGE', key} nothing written: stage the plan again

-- @include _types
-- @include _rights
-- @include _prolong
-- @include _record
-- @include _plan

local dead, record, kept = KEYS[1], KEYS[2], tonumber(ARGV[3])
if not type_is(dead, 'zset') then return {'TYPE', dead} end
local score = redis.call('ZSCORE', dead, ARGV[1])
if not score then return {'GONE'} end
local wrong = denied('ZADD', dead, '0', '')
if wrong then return wrong end
local state = record_state(record)
local plan
-- Nothing of a cancelled run starts.
if state ~= 'cancelled' then
  plan, wrong = read_plan(3 + kept, 8, nil, state == 'paused' and record or nil)
  if not plan then return wrong end
end
-- ZREM is the gate.
redis.call('ZREM', dead, ARGV[1])
redis.call('ZADD', dead, score, ARGV[2])
if plan then write_plan(plan) end
if state and ARGV[5] ~= '' then
  -- A worker that could not plan may have recorded a death that stops the run.
  forget_failure(record, state, ARGV[5], tonumber(ARGV[4]))
  record_caught(record, ARGV[5], ARGV[6], ARGV[7])
end
for i = 3, 2 + kept do prolong(KEYS[i], tonumber(ARGV[4])) end
return {'DONE'}
