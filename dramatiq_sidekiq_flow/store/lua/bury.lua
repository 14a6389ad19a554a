-- Adds a step that failed for good on another broker to `dead`.  Others may take its place:
-- their plan is written, too, or parked if the run is paused, unless the step is there already.
--
-- KEYS: 'dead', record (see _record), then keys of barriers, memory and record to keep
--       alive, then the plan's (see _plan)
-- ARGV: score, payload, score up to which `dead` is trimmed, maximum jobs in
--       `dead`, ttl of the kept keys in seconds, number of the step ('jid:' and
--       its jid if it has none, '' = it is not a step), what the record holds of the failure; if others take its place also: how many keys to
--       keep alive, number of steps that run in its place, the plan's
-- Returns: {'DONE'} | {'TYPE', key} nothing written | {'STAGE', key} nothing written: stage
--       the plan again

-- @include _types
-- @include _prolong
-- @include _record
-- @include _plan

local dead, caught = KEYS[1], ARGV[8] ~= nil
if not type_is(dead, 'zset') then return {'TYPE', dead} end
local kept = tonumber(ARGV[8] or #KEYS - 2)
local state = record_state(KEYS[2])
local plan, wrong
-- Nothing of a cancelled run starts.
if caught and state ~= 'cancelled' and not redis.call('ZSCORE', dead, ARGV[2]) then
  plan, wrong = read_plan(3 + kept, 10, nil, state == 'paused' and KEYS[2] or nil)
  if not plan then return wrong end
end
redis.call('ZADD', dead, ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', dead, '-inf', ARGV[3])
redis.call('ZREMRANGEBYRANK', dead, 0, -tonumber(ARGV[4]))
if plan then write_plan(plan) end
record_failure(KEYS[2], state, ARGV[6], ARGV[7], tonumber(ARGV[5]), ARGV[9])
for i = 3, 2 + kept do prolong(KEYS[i], tonumber(ARGV[5])) end
return {'DONE'}
