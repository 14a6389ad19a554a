-- A run starts: its marker, its seeded memory, its barriers and first jobs.
-- The marker makes it safe to send twice, and safe to call twice.
--
-- KEYS: swf:run:ID, memory hash, 'queues', 'schedule', then the plan's
-- ARGV: ttl of the marker in seconds, ttl of the memory in seconds,
--       number of fields, per field: name, JSON, then the plan's
-- Returns: {'DONE'} | {'STARTED'} it was before, nothing written
--       | {'TYPE', key} | {'STAGE', key} nothing written: stage the plan again

local n_fields = tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[1]) == 1 then return {'STARTED'} end
if n_fields > 0 and not type_is(KEYS[2], 'hash') then return {'TYPE', KEYS[2]} end
local plan, wrong = read_plan(5, 4 + 2 * n_fields, KEYS[3], KEYS[4])
if not plan then return wrong end

redis.call('SET', KEYS[1], '1', 'EX', ARGV[1])
for first = 4, 3 + 2 * n_fields, 1000 do
  redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + 999, 3 + 2 * n_fields)))
end
if n_fields > 0 then redis.call('EXPIRE', KEYS[2], ARGV[2]) end
write_plan(plan)
return {'DONE'}
