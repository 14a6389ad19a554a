-- Adds a step that failed for good on another broker to `dead`.
--
-- KEYS: 'dead', record (see _record), then keys of barriers, memory and record to keep
--       alive
-- ARGV: score, payload, score up to which `dead` is trimmed, maximum jobs in
--       `dead`, ttl of the kept keys in seconds, number of the step ('' = it has none),
--       what the record holds of the failure
-- Returns: {'DONE'} | {'TYPE', key} nothing written

-- @include _types
-- @include _prolong
-- @include _record

if not type_is(KEYS[1], 'zset') then return {'TYPE', KEYS[1]} end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -tonumber(ARGV[4]))
local state = ARGV[6] ~= '' and record_state(KEYS[2])
if state then record_dead(KEYS[2], state, ARGV[6], ARGV[7]) end
for i = 3, #KEYS do prolong(KEYS[i], tonumber(ARGV[5])) end
return {'DONE'}
