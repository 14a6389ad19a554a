-- A job is done, and barriers of the application's own have counted it: take it
-- out of flight, keep its output, push what follows.  Safe to send twice.
--
-- KEYS: in-flight hash, memory hash ('' = none), 'queues', 'schedule',
--       swf:released:BARRIER of the barrier whose continuation this is ('' where
--       nothing follows), then the plan's (see _plan)
-- ARGV: receipt, ttl of that marker in seconds, seconds that the memory lives on,
--       number of fields, per field: name, JSON, then the plan's
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TYPE', key} | {'STAGE', key} nothing written: stage the plan again
--
-- The marker: a job that comes twice is told twice that its barrier released,
-- and what follows is pushed by the first of them.

local n_fields = tonumber(ARGV[4])
if not type_is(KEYS[1], 'hash') then return {'TYPE', KEYS[1]} end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'GONE'} end
if n_fields > 0 and not type_is(KEYS[2], 'hash') then return {'TYPE', KEYS[2]} end
local plan, wrong
if KEYS[5] ~= '' and redis.call('EXISTS', KEYS[5]) == 0 then
  plan, wrong = read_plan(6, 5 + 2 * n_fields, KEYS[3], KEYS[4])
  if not plan then return wrong end
end

redis.call('HDEL', KEYS[1], ARGV[1])
for first = 5, 4 + 2 * n_fields, 1000 do
  redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + 999, 4 + 2 * n_fields)))
end
if KEYS[2] ~= '' then
  -- Kept alive with its run; never shorter than before.
  local left = redis.call('TTL', KEYS[2])
  if left ~= -2 and left < tonumber(ARGV[3]) then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
end
if plan then
  redis.call('SET', KEYS[5], '1', 'EX', ARGV[2])
  write_plan(plan)
end
return {'DONE'}
