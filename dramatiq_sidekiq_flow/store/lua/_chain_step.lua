-- The advance past a step of a chain that one job follows: most steps of most runs.  It
-- reads and writes the same as the rest of advance.lua, in two thirds of the time, since
-- it makes no functions and tables.
--
-- chain_step() -> the reply of advance.lua, with its keys and arguments; nil if that must
--                 look itself: nothing is written then

-- @include _slack
-- @include _released
-- @include _record

local function chain_step()
  local fields = tonumber(ARGV[7])
  local a = 8 + 2 * fields
  local barriers = ARGV[a + 2]
  local n = barriers == '1' and 2 or 0
  -- One callback, which fires this plan: at most one barrier, and one job.
  if ARGV[a] ~= 'f' or ARGV[a + 1] ~= '1' or #ARGV ~= a + 5 + n or #KEYS ~= 5 + n / 2 then return end
  if n == 0 and barriers ~= '0' or n == 2 and ARGV[a + 4] ~= '1' then return end
  -- A step that had failed, and one in 50, writes more to the record.
  local record, step = KEYS[3], ARGV[6]
  if string.find(step, '^!') or string.find(step, '^%d*[05]0 ') then return end
  if ARGV[a + 3 + n] ~= '1' or ARGV[a + 4 + n] ~= '1' or fields > 100 then return end

  -- Reads.  What is not as usual, such as a key of another type, is left to advance.lua.
  local call, pcall, may = redis.call, redis.pcall, redis.acl_check_cmd
  local in_flight, memory, barrier, list, payload = KEYS[1], KEYS[2], KEYS[4], KEYS[#KEYS], ARGV[a + 5 + n]
  local ran, name, keep = barrier .. '_ran', string.sub(list, 7), ARGV[5]
  local found, length = pcall('MGET', barrier, ran), pcall('LLEN', list)
  if found[1] ~= '1' or found[2] ~= '-1' or type(length) ~= 'number' then return end
  local kept = keep ~= '' and length == 0 and pcall('SISMEMBER', 'paused', name) ~= 1
  if not kept and pcall('SISMEMBER', 'queues', name) ~= 1 then return end
  if memory ~= '' then
    local left = call('TTL', memory)
    if left ~= -2 and left < math.max(tonumber(ARGV[3]), tonumber(ARGV[4])) - SLACK then return end
    -- A missing one needs a TTL.
    if fields > 0 and call('TYPE', memory).ok ~= 'hash' then return end
  end
  if may then
    if not may('SETEX', barrier, '1', '') or fields > 0 and not may('HSET', memory, '', '') then return end
    if kept and not may('HSET', in_flight, keep, '') or not kept and not may('LPUSH', list, '') then return end
  end
  local state = record_state(record)
  if state == 'cancelled' or state == 'paused' or not state and record ~= '' and step == '' then return end

  -- Writes.
  if pcall('HDEL', in_flight, ARGV[1]) ~= 1 then return end
  if fields > 0 then call('HSET', memory, unpack(ARGV, 8, a - 1)) end
  call('SETEX', barrier, RELEASED_TTL, '0')
  call('SETEX', ran, RELEASED_TTL, '0')
  if n > 0 then
    call('SETEX', KEYS[5], ARGV[a + 3], '1')
    call('SETEX', KEYS[5] .. '_ran', ARGV[a + 3], '-1')
  end
  if state and step ~= '' then mark_done(record, step) end
  if kept then
    call('HSET', in_flight, keep, payload)
    return {'KEPT'}
  end
  call('LPUSH', list, payload)
  return {'DONE'}
end
