-- Starts a run: writes its marker, its initial memory, its barriers and first jobs.
-- The marker makes it safe to send twice, and safe to call twice.
--
-- KEYS: swf:run:ID, memory hash, record (see _record), the plan's (see _plan)
-- ARGV: ttl of the marker in seconds, ttl of the memory in seconds,
--       the fields' (see _fields), the record's (see _new_record), the plan's
-- Returns: {'DONE'} | {'STARTED'} it was started before, nothing written
--       | {'TYPE', key} | {'STAGE', key} nothing written: stage the plan again
--       | {'TAKEN', ID} nothing written: that run has the unique key, and lives

-- @include _types
-- @include _fields
-- @include _plan
-- @include _new_record

local marker, memory, record = KEYS[1], KEYS[2], KEYS[3]
local fields, a = read_fields(3)
local made
made, a = read_record(a)

if redis.call('EXISTS', marker) == 1 then return {'STARTED'} end
local wrong = refused_start(record, made)
if wrong then return wrong end
if fields.n > 0 and not type_is(memory, 'hash') then return {'TYPE', memory} end
local plan
plan, wrong = read_plan(4, a)
if not plan then return wrong end

redis.call('SET', marker, '1', 'EX', ARGV[1])
write_fields(memory, fields)
if fields.n > 0 then redis.call('EXPIRE', memory, ARGV[2]) end
write_plan(plan)
if record ~= '' then make_record(record, made) end
return {'DONE'}
