-- Records the death of a step that was found in `dead`, if its record does not have it:
-- Ruby with the plain gem records none.  Safe to send twice.
--
-- KEYS: record (see _record), 'dead'
-- ARGV: number of the step ('jid:' and its jid if it has none), what the record holds of the failure, the member of `dead`
-- Returns: {'DONE'} | {'KNOWN'} nothing is to be written: the death is recorded, the step
--       is done, the job has left `dead`, or the run has no record or has ended

-- @include _record

local record, number = KEYS[1], ARGV[1]
local state = record_state(record)
if not state or state == 'done' or state == 'cancelled' then return {'KNOWN'} end
local score = redis.pcall('ZSCORE', KEYS[2], ARGV[3])
if not score or type(score) == 'table' and score.err then return {'KNOWN'} end
if redis.pcall('HEXISTS', record .. ':times', number) == 1 then return {'KNOWN'} end
local bit = tonumber(number) and redis.pcall('BITFIELD', record .. ':done', 'GET', 'u1', number)
if bit and bit[1] == 1 then return {'KNOWN'} end
if redis.pcall('HEXISTS', record .. ':failed', number) == 1 and state ~= 'running' then
  -- A worker of a version before callbacks may have recorded it.
  local calls = redis.pcall('HMGET', record, 'on_failure', 'on_complete')
  local rests = not calls[2] or redis.pcall('ZSCORE', 'swf:resting', string.sub(record, 10))
  if not calls[1] and rests then return {'KNOWN'} end
end
-- As long as `dead` keeps a job.
record_failure(record, state, number, ARGV[2], 15552000)
local left = redis.pcall('TTL', record)
if type(left) == 'number' and left > 0 then redis.pcall('EXPIRE', record .. ':failed', left) end
return {'DONE'}
