-- Sends a signal to a run: keeps it, and moves the steps that wait for it from `schedule`
-- to their queues.  Safe to send twice.
--
-- KEYS: record (see _record), swf:run:ID, swf:signals:RUN, swf:waiting:RUN, 'schedule',
--       'queues'
-- ARGV: name of the signal, its data, seconds that it is kept at least
-- Returns: {'DONE', number of steps that were moved} | {'ENDED'} the run is done, or
--       cancelled: nothing written | {'UNKNOWN'} there is no such run | {'TYPE', key}
--       nothing written
--
-- See wait.lua for the hashes.  A step that left `schedule` in another way, since its time
-- is over, since its run is paused, or by hand, sees the signal when it runs.

-- @include _types
-- @include _rights
-- @include _record

local record, run, signals, waiting, schedule, queues = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local name, data, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])

-- Reads.
local state = record_state(record)
if state == 'done' or state == 'cancelled' then return {'ENDED'} end
if not state and redis.call('EXISTS', run) == 0 then return {'UNKNOWN'} end
for key, kind in pairs({[signals] = 'hash', [waiting] = 'hash', [schedule] = 'zset', [queues] = 'set'}) do
  if not type_is(key, kind) then return {'TYPE', key} end
end
local steps, entries = {}, redis.call('HGETALL', waiting)
for i = 1, #entries, 2 do
  if string.sub(entries[i], 1, #name + 1) == name .. '\n' then
    local queue, payload = string.match(entries[i + 1], '^([^\n]*)\n(.*)$')
    if queue then
      local list = 'queue:' .. queue
      if not type_is(list, 'list') then return {'TYPE', list} end
      local wrong = denied('LPUSH', list, '') or denied('SADD', queues, '')
      if wrong then return wrong end
      steps[#steps + 1] = {field = entries[i], queue = queue, list = list, payload = payload}
    end
  end
end
local wrong = denied('HSET', signals, '', '') or denied('EXPIRE', signals, '1') or denied('HDEL', signals, '')
  or denied('ZREM', schedule, '') or denied('HDEL', waiting, '')
if wrong then return wrong end

-- Writes.  HDEL comes first: Redis allows it when it is out of memory, and after it also
-- the others.
redis.call('HDEL', signals, name)
redis.call('HSET', signals, name, data)
local left = redis.pcall('TTL', record)
outlive(signals, math.max(ttl, type(left) == 'number' and left or 0))
local moved = 0
for _, step in ipairs(steps) do
  redis.call('HDEL', waiting, step.field)
  if redis.call('ZREM', schedule, step.payload) == 1 then
    redis.call('SADD', queues, step.queue)
    redis.call('LPUSH', step.list, step.payload)
    moved = moved + 1
  end
end
return {'DONE', moved}
