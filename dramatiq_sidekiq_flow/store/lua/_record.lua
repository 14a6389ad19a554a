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
-- outlive(key, ttl): prolongs a key to at least ttl seconds
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- mark_done(record, number, times): marks a step as done
-- record_step(record, state, a, ttl) -> the state after a step is done; keeps the record
--       for ttl seconds, now and then
-- record_dead(record, state, number, failure)
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl seconds
--       at least
-- set_state(record, from, to, ttl): moves the run to another state, and lists it
-- finish_record(record, from): moves the run to `done`, and lets its record expire
-- prolong_record(record, state, ttl): to at least ttl seconds
-- PARTS: suffixes of its keys
-- MOST_TIMED: number of the first step that is a bit, since a hash of all steps of a large
--       run is large
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
--
-- A record must not fail a step, so errors of its writes are ignored.

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

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl then redis.pcall('EXPIRE', key, ttl) end
end

local function mark_done(record, number, times)
  if tonumber(number) < MOST_TIMED then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    redis.pcall('SETBIT', record .. ':done', number, 1)
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, tonumber(ttl))
end

local function set_state(record, from, to, ttl)
  if from == to then return end
  local id, started = string.sub(record, 10), redis.pcall('HGET', record, 'started')
  redis.pcall('HSET', record, 'state', to)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
end

local function finish_record(record, from)
  local keep = redis.pcall('HGET', record, 'keep')
  keep = type(keep) == 'string' and keep or '604800'
  set_state(record, from, 'done', keep)
  redis.pcall('HSET', record, 'finished', seconds_now())
  redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1)
  for _, part in ipairs(PARTS) do redis.pcall('EXPIRE', record .. part, keep) end
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function record_step(record, state, a, ttl)
  local number, times, had_failed = ARGV[a], ARGV[a + 1], ARGV[a + 2] == '1'
  if number == '' then return state end
  mark_done(record, number, times)
  if had_failed then
    redis.pcall('HDEL', record .. ':failed', number)
    if state == 'failed' and redis.pcall('EXISTS', record .. ':failed') == 0 then
      set_state(record, state, 'running', ttl)
      state = 'running'
    end
  end
  if number % 64 == 0 then prolong_record(record, state, ttl) end
  return state
end
