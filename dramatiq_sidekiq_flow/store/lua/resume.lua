-- What remains of a run goes on without running its dead step again: the step's
-- job is replaced by one that does nothing, and has the same callback stack.
-- Barriers of the stack that are gone are made anew.  Safe to send twice.
--
-- KEYS: 'dead' or 'retry', 'queues', queue list,
--       per callback: BARRIER, BARRIER_ran, BARRIER:u
-- ARGV: member of the set, name of the queue, payload of the job that does
--       nothing, ttl of barriers in seconds, per callback: value of its
--       barrier, where that is gone
-- Returns: {'DONE', number of barriers made} | {'GONE'} not in the set
--       | {'TYPE', key} nothing written

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

if not type_is(KEYS[1], 'zset') then return {'TYPE', KEYS[1]} end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {'GONE'} end
if not type_is(KEYS[2], 'set') then return {'TYPE', KEYS[2]} end
if not type_is(KEYS[3], 'list') then return {'TYPE', KEYS[3]} end
local missing = {}
for i = 1, (#KEYS - 3) / 3 do
  local k = 1 + 3 * i
  local barrier, ran, units = KEYS[k], KEYS[k + 1], KEYS[k + 2]
  if not type_is(barrier, 'string') then return {'TYPE', barrier} end
  if not type_is(ran, 'string') then return {'TYPE', ran} end
  if not type_is(units, 'set') then return {'TYPE', units} end
  if redis.call('EXISTS', barrier, ran) < 2 then missing[#missing + 1] = {barrier, ran, units, ARGV[4 + i]} end
end

redis.call('ZREM', KEYS[1], ARGV[1])
for _, m in ipairs(missing) do
  redis.call('SETEX', m[1], ARGV[4], m[4])
  redis.call('SETEX', m[2], ARGV[4], -1)
  redis.call('UNLINK', m[3])
end
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('LPUSH', KEYS[3], ARGV[3])
return {'DONE', #missing}
