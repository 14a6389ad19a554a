-- Arms barriers again that were disarmed while their run was paused (hold_barriers.lua).
-- Safe to send twice.
--
-- The gem counts a barrier down, and then raises its marker by 1 if nothing is left: the
-- caller that gets 0, from -1, starts the next steps.  So of a disarmed barrier,
--   value >= 1               waits for more: the marker becomes -1
--   value <= 0, marker 0     a Ruby worker is between both commands: the marker becomes -1,
--                            and this worker starts the next steps
--   value <= 0, marker >= 1  the gem has released it, and started nothing: the barrier waits
--                            for one unit more, the job that does nothing, which is pushed
--
-- KEYS: record (see _record), 'queues', BARRIER of each
-- ARGV: none
-- Returns: {'DONE'}, also if the run is paused or cancelled: nothing written then
--       | {'TYPE', key} nothing written

-- @include _types
-- @include _rights
-- @include _record
-- @include _parked

local record, queues = KEYS[1], KEYS[2]
local disarmed, state = record .. ':disarmed', record_state(record)
if state == 'paused' or state == 'cancelled' then return {'DONE'} end

local function number_at(key)
  local text = redis.pcall('GET', key)
  return type(text) == 'string' and whole(text)
end

-- Reads.
if not type_is(disarmed, 'hash') then return {'TYPE', disarmed} end
if not type_is(queues, 'set') then return {'TYPE', queues} end
local armed, fields = {}, {}
for i = 3, #KEYS do
  local barrier = KEYS[i]
  local entry = redis.call('HGET', disarmed, barrier)
  local value, marker = number_at(barrier), number_at(barrier .. '_ran')
  if entry then fields[#fields + 1] = barrier end
  -- A barrier that is gone cannot be armed.
  if entry and value and marker then
    local each = {barrier = barrier, ttl = math.max(1, redis.call('TTL', barrier .. '_ran'))}
    if value <= 0 and marker >= 1 then
      local letter, rest, job = split_entry(entry)
      each.name, each.job = letter .. rest, job
      local queue = 'queue:' .. each.name
      if not type_is(queue, 'list') then return {'TYPE', queue} end
      local refused = denied('LPUSH', queue, '') or denied('SADD', queues, '')
      if refused then return refused end
    end
    local refused = denied('SET', barrier .. '_ran', '') or denied('SET', barrier, '')
    if refused then return refused end
    armed[#armed + 1] = each
  end
end
if #fields == 0 then return {'DONE'} end

-- Writes.  Redis allows HDEL when it is out of memory, and after it also the others.
redis.call('HDEL', disarmed, unpack(fields))
for _, each in ipairs(armed) do
  if each.job then redis.call('SET', each.barrier, '1', 'EX', each.ttl) end
  redis.call('SET', each.barrier .. '_ran', '-1', 'EX', each.ttl)
  if each.job then
    redis.call('SADD', queues, each.name)
    redis.call('LPUSH', 'queue:' .. each.name, each.job)
  end
end
return {'DONE'}
