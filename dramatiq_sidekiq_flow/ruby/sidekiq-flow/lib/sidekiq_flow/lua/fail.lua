-- Moves a failed job from flight to `retry` or `dead`, or discards it.  A step of a cancelled
-- run is discarded instead of retried.  Others may take the place of a step that is dead or
-- discarded: their plan is written, too, or parked if the run is paused.
--
-- KEYS: in-flight hash, 'retry' or 'dead', record (see _record), then keys of barriers,
--       memory and record to keep alive, then the plan's (see _plan)
-- ARGV: receipt, action ('retry', 'dead', 'discard'), score, payload,
--       score up to which `dead` is trimmed, maximum jobs in `dead`,
--       seconds that the kept keys live from now on, for `dead` the number of the step
--       ('jid:' and its jid if it has none, '' = it is not a step), and what its record holds
--       of the failure; if others take its place also: how many keys to keep alive, number of
--       steps that run in its place, the plan's
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TYPE', key} nothing written | {'STAGE', key} nothing written: stage the plan again

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
-- Extends lifetimes, and never shortens them.  A missing key stays missing.
--
-- prolong(key, ttl): to at least ttl seconds.  A key without an expiry gets one, since
--       all keys of a run expire
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but
--       leaves a key without an expiry unchanged, and one whose lifetime is at most
--       slack seconds shorter than ttl

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
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
-- Groups that need some of their members.  The barrier of such a group has an id of version
-- 8, whose first eight digits are the number of members that may die: of all, without those
-- that are needed.  It is met when it is down to 0.  A member that ends later is *late*: it
-- is counted in BARRIER:u, which stays, and nothing follows it.
--
-- BARRIER:d is a hash of the dead members.  j<ID> is the member of a death that is counted: ID
-- is the number of a step, or the barrier of a group in it that needs some of its members,
-- and cannot get them.  The member is what is above the barrier in the callback stack: a
-- barrier, or else the number of the step.  u<MEMBER> is its number of deaths, and n the number
-- of dead members
--
-- spare_of(barrier) -> the number of members that may die; nil for any other barrier
-- any_needs(barriers) -> true if one of them is the barrier of such a group
-- barriers_in(first, last) -> the barriers among these KEYS, each before its other keys, from the
--       last one on
-- first_keys(first, n) -> n KEYS
-- is_met(barrier) -> true if the group needs no more members, or if its barrier has expired
-- count_death(dead, id, member, ttl) -> the number of dead members, after a death: dead is BARRIER:d
-- is_spared(barriers, number, ttl) -> true if a group can do without a step that is dead, which is counted
-- record_death(record, state, number, failure, barriers, ttl): as record_dead of _record, but a
--       death that a group can do without does not stop the run: it is spared.  barriers: of the
--       step, from the top; ttl: seconds that the deaths of members are kept
-- record_failure(record, state, number, failure, ttl, ran, barriers): record_death, or with ran
--       record_caught, of a step that goes to `dead`; nothing for the number ''.  For a step
--       without a number it makes the record, as known_state, and keeps it for ttl seconds
-- spare_all(record, barrier): the deaths in the members of a group that can do without them are spared
-- forget_death(dead, id) -> the number of dead members, if there is one less; else nil
-- revive(record, barriers, number): a step that had failed is done
-- revived(record, state, text, barriers, ttl) -> the state after a step is done: one that had
--       failed (see _record) is dead no more, and the other deaths of its group may be spared


local function spare_of(barrier)
  if string.byte(barrier, 15) ~= 56 or #barrier ~= 36 then return end
  return tonumber(string.sub(barrier, 1, 8), 16)
end

local function any_needs(barriers)
  for _, barrier in ipairs(barriers) do
    if spare_of(barrier) then return true end
  end
  return false
end

local function barriers_in(first, last)
  local found = {}
  for i = first, last - 1 do
    if KEYS[i + 1] == KEYS[i] .. '_ran' then table.insert(found, 1, KEYS[i]) end
  end
  return found
end

local function first_keys(first, n)
  local found = {}
  for i = first, first + n - 1 do found[#found + 1] = KEYS[i] end
  return found
end

local function is_met(barrier)
  local value = redis.pcall('GET', barrier)
  return type(value) ~= 'string' or (tonumber(value) or 1) <= 0
end

local function count_death(dead, id, member, ttl)
  if redis.pcall('HEXISTS', dead, 'j' .. id) == 0 then
    redis.pcall('HSET', dead, 'j' .. id, member)
    if redis.pcall('HINCRBY', dead, 'u' .. member, 1) == 1 then redis.pcall('HINCRBY', dead, 'n', 1) end
  end
  local left, n = redis.pcall('TTL', dead), redis.pcall('HGET', dead, 'n')
  if type(left) == 'number' and left < ttl then redis.pcall('EXPIRE', dead, ttl) end
  return type(n) == 'string' and tonumber(n) or 0
end

local function is_spared(barriers, number, ttl)
  local id = number
  for i, barrier in ipairs(barriers) do
    local spare = spare_of(barrier)
    if spare then
      if is_met(barrier) then return true end
      if count_death(barrier .. ':d', id, barriers[i - 1] or number, ttl) <= spare then return true end
      -- The group is a dead member of the next one.
      id = barrier
    end
  end
  return false
end

local function record_death(record, state, number, failure, barriers, ttl)
  if not any_needs(barriers) then return record_dead(record, state, number, failure) end
  forget_spared(record, number)
  if state ~= 'cancelled' and is_spared(barriers, number, ttl) then
    redis.pcall('HSET', record .. ':failed', number, failure)
    return spare_failure(record, number)
  end
  record_dead(record, state, number, failure)
end

local function record_failure(record, state, number, failure, ttl, ran, barriers)
  local has_number = tonumber(number)
  if not has_number and number ~= '' then state = state or known_state(record, '', ttl) end
  if not state or number == '' then return end
  if ran then
    record_caught(record, number, failure, ran)
  else
    record_death(record, state, number, failure, barriers, ttl)
  end
  if not has_number then prolong_record(record, state, ttl) end
end

local function spare_all(record, barrier)
  local fields = redis.pcall('HKEYS', barrier .. ':d')
  if fields.err then return end
  for _, field in ipairs(fields) do
    local id = string.match(field, '^j(.*)$')
    if id and #id == 36 then
      spare_all(record, id)
    elseif id then
      spare_failure(record, id)
    end
  end
end

local function forget_death(dead, id)
  local member = redis.pcall('HGET', dead, 'j' .. id)
  if type(member) ~= 'string' then return end
  redis.pcall('HDEL', dead, 'j' .. id)
  if redis.pcall('HINCRBY', dead, 'u' .. member, -1) ~= 0 then return end
  redis.pcall('HDEL', dead, 'u' .. member)
  return redis.pcall('HINCRBY', dead, 'n', -1)
end

local function revive(record, barriers, number)
  local id = number
  for _, barrier in ipairs(barriers) do
    local spare = spare_of(barrier)
    if spare then
      -- Only then it was too many before, and is not now.
      if forget_death(barrier .. ':d', id) ~= spare then return end
      spare_all(record, barrier)
      id = barrier
    end
  end
end

local function revived(record, state, text, barriers, ttl)
  local number = string.match(text, '^!(%d+)') or string.match(text, '^!(jid:.+)')
  if not number or not any_needs(barriers) then return state end
  revive(record, barriers, number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end
-- The plan for the continuation of a step, or for the first jobs of a run: reads it
-- from the arguments, then writes it.
--
-- In KEYS, from k on:  1 per barrier (its id; BARRIER_ran is written, too), then
--                      1 per queue list, then of a fan-out: swf:fanout:ID, 'swf:fanouts'
-- In ARGV, from a on:  number of barriers; per barrier: ttl, value (0 = made released)
--                      number of queues;   per queue: n, n payloads
--                      number of scheduled; per job: score, payload
--                      number of fan-outs (0 or 1), then of it: ID, how many
--                      elements it has, how many queues it goes to, their names
--                      ('' = `schedule`)
--                      A number that is left out at the end is 0.
-- QUEUES and SCHEDULE are the set and the zset that all plans write.
--
-- may_keep(keep, length, name) -> keep if a queue of that length is empty and not paused, else nil
-- read_plan(k, a, keep, parked) -> the plan, or nil and an error reply:
--                      {'TYPE', key} | {'STAGE', key} the list of the fan-out is gone
--                      | an error if the user may not write the jobs
--                      keep: nil, or where to keep the job of a plan that has no other:
--                      {hash, receipt}.  It is kept there, instead of pushed, if
--                      its queue is empty and not in the set PAUSED; then plan.kept is keep
--                      parked: nil, or the record of a paused run, whose jobs are parked
-- park_plan(plan): parks its jobs
-- write_plan(plan): cannot fail, since read_plan has checked all types
--
-- A plan that is too large for one script was staged as a list (fanouts.py).  It is
-- only committed here: the list no longer expires, and its ID is in `swf:fanouts`, so
-- any process can push its jobs (pour.lua).

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end
-- Jobs of a paused run: they are parked, and go on when the run is resumed (unpark.lua).
--
-- swf:parked:ID is a list; what is at its head goes on first.  Each entry has a letter and
-- a name, then a NUL, then a job:
--       qNAME     goes to a queue
--       sSCORE    goes to `schedule`
--       rSCORE    goes to `retry`
--       fID       a staged fan-out, which is committed; the run id in quotes stands for its
--                 jobs, so that they are found
-- swf:flow:ID:disarmed is a hash of the barriers that were disarmed for the plain gem:
-- BARRIER -> name of a queue, a NUL, and the job that fires it later (see hold_barriers.lua)
--
-- PARKED_TTL: seconds for which all of that is kept, as long as `dead` keeps its jobs
-- parked_list(record) -> swf:parked:ID
-- cannot_park(record) -> nil, or the reply if nothing can be parked: {'TYPE', key}, or an error
-- park(record, command, entries): parks them at the end (RPUSH), or at the head (LPUSH)
-- split_entry(entry) -> letter and name, job


local PARKED_TTL = 15552000

local function parked_list(record)
  return 'swf:parked:' .. string.sub(record, 10)
end

local function cannot_park(record)
  local list = parked_list(record)
  if not type_is(list, 'list') then return {'TYPE', list} end
  return denied('RPUSH', list, '') or denied('LPUSH', list, '') or denied('EXPIRE', list, '1')
end

local function park(record, command, entries)
  local list = parked_list(record)
  call_in_slices(command, list, entries, 1, #entries)
  redis.call('EXPIRE', list, PARKED_TTL)
end

local function split_entry(entry)
  local at = string.find(entry, '\0', 1, true) or #entry + 1
  return string.sub(entry, 1, 1), string.sub(entry, 2, at - 1), string.sub(entry, at + 1)
end

local QUEUES, SCHEDULE, PAUSED = 'queues', 'schedule', 'paused'

local function may_keep(keep, length, name)
  -- A key of another type pauses nothing.
  if keep and length == 0 and redis.pcall('SISMEMBER', PAUSED, name) ~= 1 then return keep end
end

local function read_plan(k, a, keep, parked)
  local refused = parked and cannot_park(parked)
  if refused then return nil, refused end
  if parked then keep = nil end
  local n = tonumber(ARGV[a] or 0); a = a + 1
  local plan = {barriers = n, barrier_key = k, barrier_argument = a, queues = {}, parked = parked}
  k = k + n; a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  for i = 1, n do
    local key, count = KEYS[k], tonumber(ARGV[a])
    local name = string.sub(key, 7)
    local length, listed, wrong
    length, wrong = checked('LLEN', key)
    if wrong then return nil, wrong end
    plan.kept = may_keep(keep, length, name)
    if plan.kept then
      wrong = denied('HSET', keep.hash, keep.receipt, '')
    else
      listed, wrong = checked('SISMEMBER', QUEUES, name)
      if listed == 0 then wrong = denied('SADD', QUEUES, name) end
      wrong = wrong or denied('LPUSH', key, '')
    end
    if wrong then return nil, wrong end
    plan.queues[i] = {key = key, name = name, first = a + 1, last = a + count, listed = listed == 1}
    k = k + 1; a = a + 1 + count
  end
  n = tonumber(ARGV[a] or 0); a = a + 1
  plan.first_scheduled, plan.last_scheduled = a, a + 2 * n - 1
  if n > 0 then
    if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
    local wrong = denied('ZADD', SCHEDULE, '0', '')
    if wrong then return nil, wrong end
  end
  a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  if n > 0 then
    local list, fanouts = KEYS[k], KEYS[k + 1]
    if not type_is(list, 'list') then return nil, {'TYPE', list} end
    if redis.call('LLEN', list) ~= tonumber(ARGV[a + 1]) then return nil, {'STAGE', list} end
    if not type_is(fanouts, 'zset') then return nil, {'TYPE', fanouts} end
    for i = a + 3, a + 2 + tonumber(ARGV[a + 2]) do
      local name = ARGV[i]
      if name == '' then
        if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
      else
        local queue = 'queue:' .. name
        if not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
        if not type_is(queue, 'list') then return nil, {'TYPE', queue} end
      end
    end
    plan.fanout = {list = list, fanouts = fanouts, now = redis.call('TIME')[1], id = ARGV[a]}
  end
  return plan
end

local function park_plan(plan)
  local entries = {}
  for _, queue in ipairs(plan.queues) do
    for i = queue.first, queue.last do entries[#entries + 1] = 'q' .. queue.name .. '\0' .. ARGV[i] end
  end
  for i = plan.first_scheduled, plan.last_scheduled, 2 do
    entries[#entries + 1] = 's' .. ARGV[i] .. '\0' .. ARGV[i + 1]
  end
  if plan.fanout then
    redis.call('EXPIRE', plan.fanout.list, PARKED_TTL)
    entries[#entries + 1] = 'f' .. plan.fanout.id .. '\0"' .. string.sub(plan.parked, 10) .. '"'
  end
  park(plan.parked, 'RPUSH', entries)
end

local function write_plan(plan)
  local k, a = plan.barrier_key, plan.barrier_argument
  for _ = 1, plan.barriers do
    local ttl = plan.parked and math.max(PARKED_TTL, tonumber(ARGV[a])) or ARGV[a]
    redis.call('SETEX', KEYS[k], ttl, ARGV[a + 1])
    redis.call('SETEX', KEYS[k] .. '_ran', ttl, ARGV[a + 1] == '0' and '0' or '-1')
    k = k + 1; a = a + 2
  end
  if plan.parked then return park_plan(plan) end
  for _, queue in ipairs(plan.queues) do
    if plan.kept then
      redis.call('HSET', plan.kept.hash, plan.kept.receipt, ARGV[queue.first])
    else
      if not queue.listed then redis.call('SADD', QUEUES, queue.name) end
      call_in_slices('LPUSH', queue.key, ARGV, queue.first, queue.last)
    end
  end
  call_in_slices('ZADD', SCHEDULE, ARGV, plan.first_scheduled, plan.last_scheduled)
  if plan.fanout then
    redis.call('PERSIST', plan.fanout.list)
    redis.call('ZADD', plan.fanout.fanouts, plan.fanout.now, plan.fanout.id)
  end
end

if not type_is(KEYS[1], 'hash') then return {'TYPE', KEYS[1]} end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'GONE'} end
local action, caught = ARGV[2], ARGV[10] ~= nil
local kept = tonumber(ARGV[10] or #KEYS - 3)
local state = record_state(KEYS[3])
if action == 'retry' and state == 'cancelled' then action = 'discard' end
if action ~= 'discard' then
  if not type_is(KEYS[2], 'zset') then return {'TYPE', KEYS[2]} end
  local refused = denied('ZADD', KEYS[2], '0', '')
  if refused then return refused end
end
local plan, wrong
-- Nothing of a cancelled run starts.
if caught and state ~= 'cancelled' then
  plan, wrong = read_plan(4 + kept, 12, nil, state == 'paused' and KEYS[3] or nil)
  if not plan then return wrong end
end
redis.call('HDEL', KEYS[1], ARGV[1])
if action ~= 'discard' then redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4]) end
if action == 'dead' then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -tonumber(ARGV[6]))
end
if plan then write_plan(plan) end
record_failure(KEYS[3], state, ARGV[8], ARGV[9], tonumber(ARGV[7]), ARGV[11], barriers_in(4, 3 + kept))
for i = 4, 3 + kept do prolong(KEYS[i], tonumber(ARGV[7])) end
return {'DONE'}
