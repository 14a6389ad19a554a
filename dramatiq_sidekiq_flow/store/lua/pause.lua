-- Pauses a run: its record says so, and the list that workers read.  Safe to send twice.
--
-- KEYS: record (see _record), 'swf:cancelled' (see _listing)
-- ARGV: reason, seconds for which a run stays in the list, most runs in it
-- Returns: {'DONE'} | {'ENDED', state} the run is done or cancelled, or was paused before:
--       nothing written | {'UNKNOWN'} there is no record | {'TYPE', key} nothing written

-- @include _types
-- @include _rights
-- @include _record
-- @include _listing
-- @include _parked

local record, list = KEYS[1], KEYS[2]
local reason, kept, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local id = string.sub(record, 10)

-- Reads.
local found, wrong = checked('HMGET', record, 'state', 'started')
if wrong then return wrong end
local state = found[1]
if not state then return {'UNKNOWN'} end
if state ~= 'running' and state ~= 'failed' then return {'ENDED', state} end
wrong = cannot_list(list) or denied('HSET', record, '', '')
if wrong then return wrong end
local now = seconds_now()
local score = next_score(list, now)

-- Writes.  ZREM comes first: Redis allows it when it is out of memory, and after it also
-- the others.
redis.call('ZREM', list, id)
redis.call('HSET', record, 'state', 'paused', 'reason', reason)
list_run(list, id, score, now, kept, most)
relist(record, state, 'paused', found[2], PARKED_TTL)
prolong_record(record, 'paused', PARKED_TTL)
outlive('swf:signals:' .. id, PARKED_TTL)
return {'DONE'}
