-- The record of a run that starts.
--
-- In ARGV, from a on: state (`running`, or `done` if no step is to run), epoch seconds of
--       the start, seconds that it lives, number of steps, the fields' (see _fields), number of further lists that
--       name the run, and their names: swf:flows:NAME
--
-- read_record(a) -> what make_record needs, and the index behind it
-- make_record(record, new): writes it

-- @include _fields
-- @include _record

local function read_record(a)
  local new = {state = ARGV[a], started = ARGV[a + 1], ttl = tonumber(ARGV[a + 2]), total = tonumber(ARGV[a + 3])}
  new.fields, a = read_fields(a + 4)
  new.first_list, new.last_list = a + 1, a + tonumber(ARGV[a])
  return new, new.last_list + 1
end

local function make_record(record, new)
  local id, now, ttl = string.sub(record, 10), new.started, new.ttl
  local first = {record, 'state', 'running', 'started', now, 'total', new.total}
  local made = redis.pcall('HSET', unpack(first))
  -- A user of before, who may not write records, starts runs without them.
  if type(made) ~= 'number' then return end
  if made < 3 then
    -- A run of the same id has left one.
    redis.pcall('UNLINK', record, record .. ':times', record .. ':done', record .. ':failed')
    redis.pcall('HSET', unpack(first))
  end
  if new.fields.n > 0 then redis.pcall('HSET', record, unpack(ARGV, new.fields.first, new.fields.last)) end
  redis.pcall('HSET', record .. ':times', '0', '')
  if new.total >= 1000 then
    redis.pcall('SETBIT', record .. ':done', new.total, 0)
    redis.pcall('EXPIRE', record .. ':done', ttl)
  end
  redis.pcall('EXPIRE', record, ttl)
  redis.pcall('EXPIRE', record .. ':times', ttl)
  add_to_list('running', id, now, ttl)
  for i = new.first_list, new.last_list do
    add_to_list(ARGV[i], id, now, ttl)
    redis.pcall('ZREMRANGEBYRANK', 'swf:flows:' .. ARGV[i], 0, -MOST_LISTED - 1)
  end
  if new.state == 'done' then finish_record(record, 'running', '') end
end
