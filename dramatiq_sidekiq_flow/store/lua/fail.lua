-- Moves a failed job from flight to `retry` or `dead`, or discards it.  A step of a cancelled
-- run is discarded instead of retried.  Others may take the place of a step that is dead or
-- discarded: their plan is written, too, or parked if the run is paused.
--
-- KEYS: in-flight hash, 'retry' or 'dead', record (see _record), then keys of barriers,
--       memory and record to keep alive, then the plan's (see _plan)
-- ARGV: receipt, action ('retry', 'dead', 'discard'), score, payload,
--       score up to which `dead` is trimmed, maximum jobs in `dead`,
--       seconds that the kept keys live from now on, for `dead` the number of the step
--       ('jid:' and its jid if it has none, '' = it is not a step), and what its record holds
--       of the failure; if others take its
--       place also: how many keys to keep alive, number of steps that run in its place, the
--       plan's
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TYPE', key} nothing written | {'STAGE', key} nothing written: stage the plan again

-- @include _types
-- @include _rights
-- @include _prolong
-- @include _record
-- @include _plan

if not type_is(KEYS[1], 'hash') then return {'TYPE', KEYS[1]} end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'GONE'} end
local action, caught = ARGV[2], ARGV[10] ~= nil
local kept = tonumber(ARGV[10] or #KEYS - 3)
local state = record_state(KEYS[3])
if action == 'retry' and state == 'cancelled' then action = 'discard' end
if action ~= 'discard' then
  if not type_is(KEYS[2], 'zset') then return {'TYPE', KEYS[2]} end
  local refused = denied('ZADD', KEYS[2], '0', '')
  if refused then return refused end
end
local plan, wrong
-- Nothing of a cancelled run starts.
if caught and state ~= 'cancelled' then
  plan, wrong = read_plan(4 + kept, 12, nil, state == 'paused' and KEYS[3] or nil)
  if not plan then return wrong end
end
redis.call('HDEL', KEYS[1], ARGV[1])
if action ~= 'discard' then redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4]) end
if action == 'dead' then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -tonumber(ARGV[6]))
end
if plan then write_plan(plan) end
record_failure(KEYS[3], state, ARGV[8], ARGV[9], tonumber(ARGV[7]), ARGV[11])
for i = 4, 3 + kept do prolong(KEYS[i], tonumber(ARGV[7])) end
return {'DONE'}
