-- Pushes a callback of a run that the keeper looks at, or takes the run out of swf:resting.
-- Safe to send twice.
--
-- KEYS: record (see _record), 'swf:resting'
-- ARGV: state that the run has ('' = it has no record), callback to push: 'on_failure',
--       'on_complete' or '' for none, JSON members for its mapping (see _run_callback), '1'
--       if the keeper looks at the run again, else '0'
-- Returns: {'DONE'} | {'CHANGED'} the run has another state: nothing written

-- @include _record

local record, name = KEYS[1], ARGV[2]
if (record_state(record) or '') ~= ARGV[1] then return {'CHANGED'} end
local callback = name ~= '' and redis.pcall('HGET', record, name)
if type(callback) == 'string' then
  push_callback(record, name, callback, ARGV[3], seconds_now())
  -- It could not be pushed.
  if redis.pcall('HEXISTS', record, name) == 1 then return {'DONE'} end
end
if ARGV[4] == '0' then redis.pcall('ZREM', KEYS[2], string.sub(record, 10)) end
return {'DONE'}
