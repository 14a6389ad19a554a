-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead.  The sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, from a on, of a step that is done: its number ('' = it has none), its times as
--       text, '1' if it had failed before, else ''
--
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- mark_done(record, number, times): marks a step as done
-- record_step(record, state, a, ttl) -> the state after a step is done; keeps the record
--       for ttl seconds, now and then
-- record_dead(record, state, number, failure)
-- set_state(record, from, to): moves the run to another state
-- finish_record(record, from): moves the run to `done`, and lets its record expire
-- prolong_record(record, ttl): to at least ttl seconds
-- PARTS: suffixes of its keys
-- MOST_TIMED: number of the first step that is a bit, since a hash of all steps of a large
--       run is large
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
--
-- A record must not fail a step, so errors of its writes are ignored.

-- @include _prolong

local PARTS = {'', ':times', ':done', ':failed'}
local MOST_TIMED = 1000
local MOST_LISTED = 100000

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function mark_done(record, number, times)
  if tonumber(number) < MOST_TIMED then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    redis.pcall('SETBIT', record .. ':done', number, 1)
  end
end

local function set_state(record, from, to)
  if from == to then return end
  local id, started = string.sub(record, 10), redis.pcall('HGET', record, 'started')
  redis.pcall('HSET', record, 'state', to)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  redis.pcall('ZADD', 'swf:flows:' .. to, type(started) == 'string' and started or '0', id)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  if state == 'running' then set_state(record, state, 'failed') end
end

local function finish_record(record, from)
  local keep = redis.pcall('HGET', record, 'keep')
  set_state(record, from, 'done')
  redis.pcall('HSET', record, 'finished', seconds_now())
  redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1)
  for _, part in ipairs(PARTS) do redis.pcall('EXPIRE', record .. part, type(keep) == 'string' and keep or '604800') end
end

local function prolong_record(record, ttl)
  for _, part in ipairs(PARTS) do prolong(record .. part, ttl) end
end

local function record_step(record, state, a, ttl)
  local number, times, had_failed = ARGV[a], ARGV[a + 1], ARGV[a + 2] == '1'
  if number == '' then return state end
  mark_done(record, number, times)
  if had_failed then
    redis.pcall('HDEL', record .. ':failed', number)
    if state == 'failed' and redis.pcall('EXISTS', record .. ':failed') == 0 then
      set_state(record, state, 'running')
      state = 'running'
    end
  end
  if number % 64 == 0 then prolong_record(record, ttl) end
  return state
end
