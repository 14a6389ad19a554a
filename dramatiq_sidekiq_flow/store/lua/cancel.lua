-- Cancels a run: its record says so, and the list of cancelled runs, which workers read.
-- Its callback on_complete is pushed (see _run_callback).
-- Safe to send twice.
--
-- KEYS: record (see _record), 'swf:cancelled' (see _listing)
-- ARGV: reason, seconds for which a run stays in the list, most runs in it
-- Returns: {'DONE'} | {'ENDED', state} the run is done, or was cancelled before: nothing
--       written | {'UNKNOWN'} there is no record | {'TYPE', key} nothing written

-- @include _types
-- @include _rights
-- @include _record
-- @include _listing

local record, list = KEYS[1], KEYS[2]
local reason, kept, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local id = string.sub(record, 10)

-- Reads.
local found, wrong = checked('HMGET', record, 'state', 'keep', 'started', 'on_complete', 'unique', 'deadline')
if wrong then return wrong end
local state, keep = found[1], tonumber(found[2] or '') or 604800
if not state then return {'UNKNOWN'} end
if state == 'done' or state == 'cancelled' then return {'ENDED', state} end
wrong = cannot_list(list) or denied('HSET', record, '', '')
if wrong then return wrong end
local now = seconds_now()
local score = next_score(list, now)

-- Writes.  ZREM comes first: Redis allows it when it is out of memory, and after it also
-- the others.
redis.call('ZREM', list, id)
redis.call('HSET', record, 'state', 'cancelled', 'finished', now, 'reason', reason)
list_run(list, id, score, now, kept, most)
relist(record, state, 'cancelled', found[3], keep)
for _, part in ipairs(PARTS) do redis.pcall('EXPIRE', record .. part, keep) end
end_run(record, 'cancelled', {found[4], found[5], found[6]}, now)
return {'DONE'}
