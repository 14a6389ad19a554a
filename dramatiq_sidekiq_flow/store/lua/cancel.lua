-- Cancels a run: its record says so, and the list of cancelled runs, which workers read.
-- Its callback on_complete is pushed (see _run_callback).
-- Safe to send twice.
--
-- KEYS: record (see _record), 'swf:cancelled'
-- ARGV: reason, seconds for which a run stays in the list, most runs in it
-- Returns: {'DONE'} | {'ENDED', state} the run is done, or was cancelled before: nothing
--       written | {'UNKNOWN'} there is no record | {'TYPE', key} nothing written
--
-- The sorted set swf:cancelled holds the ids of runs by the time of their cancellation.
-- Each score is higher than those before, also if the clock was set back: a worker reads
-- only what comes behind the last one that it knows.

-- @include _types
-- @include _rights
-- @include _record

local record, list = KEYS[1], KEYS[2]
local reason, kept, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local id = string.sub(record, 10)

-- Reads.
local found, wrong = checked('HMGET', record, 'state', 'keep', 'started', 'on_complete', 'unique', 'deadline')
if wrong then return wrong end
local state, keep = found[1], tonumber(found[2] or '') or 604800
if not state then return {'UNKNOWN'} end
if state == 'done' or state == 'cancelled' then return {'ENDED', state} end
if not type_is(list, 'zset') then return {'TYPE', list} end
wrong = denied('HSET', record, '', '') or denied('ZADD', list, '0', '') or denied('ZREMRANGEBYSCORE', list, '0', '0')
  or denied('ZREMRANGEBYRANK', list, '0', '0') or denied('EXPIRE', list, '1')
if wrong then return wrong end
local now = seconds_now()
local last = redis.call('ZRANGE', list, -1, -1, 'WITHSCORES')[2]
local score = last and tonumber(last) >= tonumber(now) and string.format('%.3f', tonumber(last) + 0.001) or now

-- Writes.  ZREM comes first: Redis allows it when it is out of memory, and after it also
-- the others.
redis.call('ZREM', list, id)
redis.call('HSET', record, 'state', 'cancelled', 'finished', now, 'reason', reason)
redis.call('ZADD', list, score, id)
redis.call('ZREMRANGEBYSCORE', list, '-inf', string.format('(%.3f', tonumber(now) - kept))
redis.call('ZREMRANGEBYRANK', list, 0, -most - 1)
redis.call('EXPIRE', list, kept)
relist(record, state, 'cancelled', found[3], keep)
for _, part in ipairs(PARTS) do redis.pcall('EXPIRE', record .. part, keep) end
end_run(record, 'cancelled', {found[4], found[5], found[6]}, now)
return {'DONE'}
