-- Parks a step that waits for a signal: takes its job out of flight, and puts it into
-- `schedule`, where it is due when its time is over.  Of a paused run, the job is parked as
-- one that goes to its queue.  Safe to send twice.
--
-- KEYS: in-flight hash, 'schedule', swf:signals:RUN, swf:waiting:RUN, record (see _record),
--       then keys of barriers, chains, memory and record to keep alive
-- ARGV: receipt, name of the signal, field and value of the step in swf:waiting:RUN,
--       score in `schedule`, payload, seconds that the kept keys live from now on,
--       '1' if the time of the step is over, else '0'
-- Returns: {'PARKED'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'SIGNAL', data} nothing written: the signal is there
--       | {'OVER'} nothing written: it is not, and the time is over
--       | {'CANCELLED'} taken out of flight: the run is cancelled
--       | {'TYPE', key} nothing written
--
-- The hash swf:signals:RUN holds the data of the signals of a run by their names.  The hash
-- swf:waiting:RUN holds the steps that wait, by the name of the signal, a line break and
-- the jid: the queue, a line break, and the payload in `schedule`.

-- @include _types
-- @include _rights
-- @include _record
-- @include _parked

local in_flight, schedule, signals, waiting, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ttl = tonumber(ARGV[7])

local found, wrong = checked('HEXISTS', in_flight, ARGV[1])
if wrong then return wrong end
if found == 0 then return {'GONE'} end
local state = record_state(record)
if state == 'cancelled' then
  redis.call('HDEL', in_flight, ARGV[1])
  return {'CANCELLED'}
end
local data
data, wrong = checked('HGET', signals, ARGV[2])
if wrong then return wrong end
if data then return {'SIGNAL', data} end
if ARGV[8] == '1' then return {'OVER'} end
for key, kind in pairs({[schedule] = 'zset', [waiting] = 'hash'}) do
  if not type_is(key, kind) then return {'TYPE', key} end
end
wrong = denied('ZADD', schedule, '0', '') or denied('HSET', waiting, '', '') or denied('EXPIRE', waiting, '1')
if state == 'paused' then wrong = wrong or cannot_park(record) end
if wrong then return wrong end

redis.call('HDEL', in_flight, ARGV[1])
if state == 'paused' then
  -- When the run is resumed, its worker looks for the signal again.
  ttl = math.max(ttl, PARKED_TTL)
  park(record, 'RPUSH', {'q' .. string.match(ARGV[4], '^[^\n]*') .. '\0' .. ARGV[6]})
else
  redis.call('ZADD', schedule, ARGV[5], ARGV[6])
  redis.call('HSET', waiting, ARGV[3], ARGV[4])
  outlive(waiting, ttl)
end
-- Later steps may wait for other signals, which came already.
outlive(signals, ttl)
for i = 6, #KEYS do outlive(KEYS[i], ttl) end
return {'PARKED'}
