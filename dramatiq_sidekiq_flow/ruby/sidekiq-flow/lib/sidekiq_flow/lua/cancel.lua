-- Cancels a run: its record says so, and the list of cancelled runs, which workers read.
-- Its callback on_complete is pushed (see _run_callback).
-- Safe to send twice.
--
-- KEYS: record (see _record), 'swf:cancelled' (see _listing)
-- ARGV: reason, seconds for which a run stays in the list, most runs in it
-- Returns: {'DONE'} | {'ENDED', state} the run is done, or was cancelled before: nothing
--       written | {'UNKNOWN'} there is no record | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end
-- The list of runs whose steps must not start, which workers read: the sorted set
-- swf:cancelled holds the ids of cancelled and of paused runs by the time of that.  Each
-- score is higher than those before, also if the clock was set back: a worker reads only
-- what comes behind the last one that it knows.
--
-- cannot_list(list) -> nil, or the reply if no run can be added: {'TYPE', key}, or an error
-- next_score(list, now) -> the score of the next run
-- list_run(list, id, score, now, kept, most): adds a run.  kept: seconds for which a run
--       stays in the list; most: runs in it


local function cannot_list(list)
  if not type_is(list, 'zset') then return {'TYPE', list} end
  return denied('ZADD', list, '0', '') or denied('ZREMRANGEBYSCORE', list, '0', '0')
    or denied('ZREMRANGEBYRANK', list, '0', '0') or denied('EXPIRE', list, '1')
end

local function next_score(list, now)
  local last = redis.call('ZRANGE', list, -1, -1, 'WITHSCORES')[2]
  local score = last and tonumber(last) >= tonumber(now) and string.format('%.3f', tonumber(last) + 0.001) or now
  return score
end

local function list_run(list, id, score, now, kept, most)
  redis.call('ZADD', list, score, id)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', string.format('(%.3f', tonumber(now) - kept))
  redis.call('ZREMRANGEBYRANK', list, 0, -most - 1)
  redis.call('EXPIRE', list, kept)
end

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
