-- Notes in the record of a run which run repeats it.  Safe to send twice.
--
-- KEYS: record (see _record)
-- ARGV: id of the other run
-- Returns: {'DONE'} | {'GONE'} there is no record | {'TYPE', key} nothing written

-- @include _types
-- @include _rights

local found, wrong = checked('HGET', KEYS[1], 'state')
if wrong then return wrong end
if not found then return {'GONE'} end
wrong = denied('HSET', KEYS[1], '', '')
if wrong then return wrong end
redis.call('HSET', KEYS[1], 'repeated', ARGV[1])
return {'DONE'}
