-- The record of a run that starts.
--
-- In ARGV, from a on: state (`running`, or `done` if no step is to run), epoch seconds of
--       the start, seconds that it lives, number of steps, the fields' (see _fields), number of further lists that
--       name the run, and their names: swf:flows:NAME, the unique key of the run ('' = none),
--       seconds until its deadline ('' = none), '1' if the run must not start without a record,
--       what it is started with ('' = it cannot be repeated)
--
-- read_record(a) -> what make_record needs, and the index behind it
-- holds_key(record, holder) -> true if the holder of a unique key is another run that lives
-- refused_start(record, new) -> nil, or a reply: {'TAKEN', ID of the run that has the unique key,
--       and lives} | {'TYPE', key} | an error if the user may not write what the run needs
-- make_record(record, new): writes it

-- @include _types
-- @include _rights
-- @include _fields
-- @include _record

local function read_record(a)
  local new = {state = ARGV[a], started = ARGV[a + 1], ttl = tonumber(ARGV[a + 2]), total = tonumber(ARGV[a + 3])}
  new.fields, a = read_fields(a + 4)
  new.first_list, new.last_list = a + 1, a + tonumber(ARGV[a])
  a = new.last_list + 1
  new.unique, new.deadline, new.needed, new.start = ARGV[a], ARGV[a + 1], ARGV[a + 2] == '1', ARGV[a + 3]
  return new, a + 4
end

local function holds_key(record, holder)
  if not holder or holder == string.sub(record, 10) then return false end
  local state = record_state('swf:flow:' .. holder)
  return state and state ~= 'done' and state ~= 'cancelled'
end

local function refused_start(record, new)
  if new.unique ~= '' then
    local key = 'swf:unique:' .. new.unique
    local holder, wrong = checked('GET', key)
    if wrong then return wrong end
    if holds_key(record, holder) then return {'TAKEN', holder} end
    wrong = denied('SET', key, '')
    if wrong then return wrong end
  end
  if new.deadline ~= '' then
    if not type_is('swf:deadlines', 'zset') then return {'TYPE', 'swf:deadlines'} end
    local wrong = denied('ZADD', 'swf:deadlines', '0', '')
    if wrong then return wrong end
  end
  if not new.needed then return end
  if not type_is(record, 'hash') then return {'TYPE', record} end
  return denied('HSET', record, '', '')
end

local function make_record(record, new)
  local id, now, ttl = string.sub(record, 10), new.started, new.ttl
  local first = {record, 'state', 'running', 'started', now, 'total', new.total}
  for i = new.fields.first, new.fields.last do first[#first + 1] = ARGV[i] end
  local made = redis.pcall('HSET', unpack(first))
  -- A user of before, who may not write records, starts runs without them.
  if type(made) ~= 'number' then return end
  if made < 3 + new.fields.n then
    -- A run of the same id has left one.
    redis.pcall('UNLINK', record, record .. ':times', record .. ':done', record .. ':failed')
    redis.pcall('HSET', unpack(first))
  end
  redis.pcall('HSET', record .. ':times', '0', '')
  if new.total >= 1000 then
    redis.pcall('BITFIELD', record .. ':done', 'SET', 'u1', new.total, 0)
    redis.pcall('EXPIRE', record .. ':done', ttl)
  end
  redis.pcall('EXPIRE', record, ttl)
  redis.pcall('EXPIRE', record .. ':times', ttl)
  add_to_list('running', id, now, ttl)
  for i = new.first_list, new.last_list do
    add_to_list(ARGV[i], id, now, ttl)
    redis.pcall('ZREMRANGEBYRANK', 'swf:flows:' .. ARGV[i], 0, -MOST_LISTED - 1)
  end
  if new.start ~= '' then redis.pcall('SET', record .. ':start', new.start, 'EX', ttl) end
  if new.unique ~= '' then redis.pcall('SET', 'swf:unique:' .. new.unique, id, 'EX', math.max(ttl, UNIQUE_TTL)) end
  if new.deadline ~= '' then
    redis.pcall('ZADD', 'swf:deadlines', string.format('%.3f', tonumber(seconds_now()) + tonumber(new.deadline)), id)
    outlive('swf:deadlines', math.ceil(tonumber(new.deadline)) + ttl)
  end
  if new.state == 'done' then finish_record(record, 'running', '') end
end
