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

-- @include _rights

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
