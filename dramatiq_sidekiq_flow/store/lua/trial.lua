-- Moves one suspect of a dead worker (BASE:I!, see recover.lua) into flight here, and
-- makes sure that no other suspect of its queue runs at the same time.
--
-- Call it at each beat for the dead members that hold suspects of a queue that
-- this process consumes, and again when a trial has ended.  The job then runs like
-- any other that was fetched ahead: begin.lua marks it as begun, and recover.lua
-- counts it if it kills the worker.
--
-- KEYS: swf:workers, in-flight hash of the dead member, in-flight hash of the
--       own member, swf:trial:QUEUE, 'paused'
-- ARGV: dead member, own member, queue name, seconds without a beat that make a
--       worker dead, a receipt base of this process that is used for nothing
--       else, seconds after which a running trial no longer blocks another one
-- Returns: {'TRIAL', payload} in flight as BASE:1? | {'WAIT'} another trial
--       runs, or the queue is paused | {'NONE'} no suspect, the member lives, or
--       the own one is not registered | {'TYPE', key} nothing written
--
-- Sent twice with the same base it returns the same.  swf:trial:QUEUE holds
-- 'TIME RECEIPT MEMBER' of the last trial, which runs while the job is in flight.

-- @include _types
-- @include _rights

for i, kind in ipairs({'zset', 'hash', 'hash'}) do
  if not type_is(KEYS[i], kind) then return {'TYPE', KEYS[i]} end
end
local receipt = ARGV[5] .. ':1'
local before = redis.call('HGET', KEYS[3], receipt .. '?')
if before then return {'TRIAL', before} end

local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or now - tonumber(score) < tonumber(ARGV[4]) then return {'NONE'} end
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return {'NONE'} end
if redis.pcall('SISMEMBER', KEYS[5], ARGV[3]) == 1 then return {'WAIT'} end

local running = redis.pcall('GET', KEYS[4])
if type(running) == 'string' then
  local began, of, member = string.match(running, '^(%S+) (%S+) (.*)$')
  local age = began and tonumber(began) and now - tonumber(began)
  if age and age >= 0 and age < tonumber(ARGV[6]) then
    for _, state in ipairs({'', '?'}) do
      if redis.pcall('HEXISTS', 'swf:inflight:' .. member, of .. state) == 1 then return {'WAIT'} end
    end
  end
end

local suspect
for _, name in ipairs(redis.call('HKEYS', KEYS[2])) do
  if string.sub(name, -1) == '!' and (not suspect or name < suspect) then suspect = name end
end
if not suspect then return {'NONE'} end
local payload = redis.call('HGET', KEYS[2], suspect)

local refused = denied('HSET', KEYS[3], receipt, '') or denied('SET', KEYS[4], '')
if refused then return refused end
redis.call('HDEL', KEYS[2], suspect)
redis.call('HSET', KEYS[3], receipt .. '?', payload)
redis.call('SET', KEYS[4], string.format('%.6f ', now) .. receipt .. ' ' .. ARGV[2], 'EX', ARGV[6])
if redis.call('HLEN', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return {'TRIAL', payload}
