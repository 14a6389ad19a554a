-- Disarms barriers of a paused run, so that the plain gem starts nothing behind them (see
-- disarm.lua), and keeps what fires them later: the hash swf:flow:ID:disarmed.  Workers in
-- Python, and the companion's, take a barrier of that hash for one that is armed.  Safe to
-- send twice.
--
-- KEYS: record (see _record), BARRIER of each
-- ARGV: for each, name of a queue, a NUL, and a job that does nothing, with the callback
--       stack up to and with this barrier
-- Returns: number of barriers that were armed; 0 if the run is not paused | {'TYPE', key}
--       nothing written

-- @include _types
-- @include _rights
-- @include _record
-- @include _parked

local record = KEYS[1]
local disarmed = record .. ':disarmed'
if record_state(record) ~= 'paused' then return 0 end
if not type_is(disarmed, 'hash') then return {'TYPE', disarmed} end
local refused = denied('HSET', disarmed, '', '')
if refused then return refused end

local count = 0
for i = 2, #KEYS do
  local barrier = KEYS[i]
  local marker = barrier .. '_ran'
  if redis.pcall('GET', marker) == '-1' then
    count = count + 1
    -- Redis allows EXPIRE when it is out of memory, and after it also the others.
    for _, suffix in ipairs({'_ran', '', ':u'}) do redis.call('EXPIRE', barrier .. suffix, PARKED_TTL) end
    redis.call('HSET', disarmed, barrier, ARGV[i - 1])
    redis.call('SET', marker, '0', 'EX', PARKED_TTL)
  end
end
redis.call('EXPIRE', disarmed, PARKED_TTL)
return count
