-- Continues a run without running its failed step again: replaces the step's job by
-- one that does nothing and has the same callback stack.  Barriers of the stack that
-- are gone are created again.  Safe to send twice.
--
-- KEYS: 'dead' or 'retry', 'queues', queue list,
--       per callback: BARRIER, BARRIER_ran, BARRIER:u
-- ARGV: member of the set, name of the queue, payload of the job that does
--       nothing, ttl of barriers in seconds, per callback: value for its
--       barrier if that is gone
-- Returns: {'DONE', number of barriers created} | {'GONE'} not in the set
--       | {'TYPE', key} nothing written

-- @include _types

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
  if redis.call('EXISTS', barrier, ran) < 2 then
    missing[#missing + 1] = {barrier = barrier, ran = ran, units = units, value = ARGV[4 + i]}
  end
end

redis.call('ZREM', KEYS[1], ARGV[1])
for _, entry in ipairs(missing) do
  redis.call('SETEX', entry.barrier, ARGV[4], entry.value)
  redis.call('SETEX', entry.ran, ARGV[4], -1)
  redis.call('UNLINK', entry.units)
end
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('LPUSH', KEYS[3], ARGV[3])
return {'DONE', #missing}
