-- Ends the pause of a run: its record says so, and from now on nothing of it is parked.
-- Safe to send twice.
--
-- The run stays in the list that workers read (see _listing).  They ask for its state.
--
-- KEYS: record (see _record)
-- ARGV: none
-- Returns: {'DONE'} | {'ENDED', state} the run is not paused: nothing written
--       | {'UNKNOWN'} there is no record | {'TYPE', key} nothing written

-- @include _types
-- @include _rights
-- @include _record

local record = KEYS[1]

-- Reads.
local found, wrong = checked('HMGET', record, 'state', 'started')
if wrong then return wrong end
local state = found[1]
if not state then return {'UNKNOWN'} end
if state ~= 'paused' then return {'ENDED', state} end
wrong = denied('HSET', record, '', '')
if wrong then return wrong end
local after = is_failed(record) and 'failed' or 'running'

-- Writes.  Redis allows HDEL when it is out of memory, and after it also the others.
redis.call('HDEL', record, 'reason')
redis.call('HSET', record, 'state', after)
relist(record, state, after, found[2], redis.call('TTL', record))
return {'DONE'}
