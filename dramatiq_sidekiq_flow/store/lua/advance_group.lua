-- Advances a run past finished steps of one group: takes their jobs out of flight,
-- writes their outputs to the memory, and counts them.  A step that would release the
-- barrier of the group is left for advance.lua, which takes a plan.  Atomic, and safe
-- to send twice.  Of a cancelled run all steps are done, and none is counted.  After a group
-- that needs some of its members was met (see _need), all are done, and late.
--
-- KEYS: in-flight hash, memory hash ('' = none), record (see _record), BARRIER of each
--       callback from the top (see _walk); the top one is the group's
-- ARGV: ttl of barriers in seconds, seconds that the memory is kept after its run,
--       number of callbacks, number of steps (some thousands at most), then receipt, unit
--       (the jid) and text (see _record) of each, then the fields' (see _fields) of each
-- Returns: {'DONE', index of each step that is left (1 = the first) ...}: nothing is
--       written for these | {'EXPIRED', BARRIER} nothing written | {'TYPE', key} nothing
--       written: another type, or a barrier that is not a whole number

-- @include _walk
-- @include _fields
-- @include _memory
-- @include _record
-- @include _parked

local in_flight, memory, record, barrier = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local ttl, memory_ttl, callbacks, n = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

-- Reads.
local state = record_state(record)
-- The barriers of a cancelled run may be disarmed: they are read, and not looked at.
local cancelled = state == 'cancelled'
local needs = spare_of(barrier)
local value, marker, wrong = read_any_barrier(barrier, needs)
if cancelled then marker, wrong = 0, nil end
if value and not cancelled and disarmed_in(record, barrier, value, marker) then marker = -1 end
if state == 'paused' then ttl = math.max(ttl, PARKED_TTL) end
if wrong then return wrong end
local late = needs and not cancelled and marker ~= -1
local units, outputs, has_fields, a = {}, {}, false, 5 + 3 * n
for i = 1, n do
  units[i] = ARGV[3 + 3 * i]
  outputs[i], a = read_fields(a)
  has_fields = has_fields or outputs[i].n > 0
end
local before
before, wrong = checked('SMISMEMBER', barrier .. ':u', unpack(units))
if wrong then return wrong end
if has_fields and not type_is(memory, 'hash') then return {'TYPE', memory} end
wrong = denied('DECRBY', barrier, '1') or denied('SADD', barrier .. ':u', '')
if not wrong and has_fields then wrong = denied('HSET', memory, '', '') end
if wrong then return wrong end

-- Writes.  HDEL, the gate of each step, comes first: Redis allows it when it is out of
-- memory, and after it also allows the other writes of the script.
local counted, known, done, left = {}, {}, {}, {'DONE'}
for i, unit in ipairs(units) do
  local new = (marker == -1 or late) and before[i] == 0 and not known[unit]
  if new and not late and value - #counted <= 1 then
    left[#left + 1] = i
  else
    local taken
    taken, wrong = checked('HDEL', in_flight, ARGV[2 + 3 * i])
    if wrong then return wrong end
    if taken == 1 then done[#done + 1] = ARGV[4 + 3 * i] end
    if taken == 1 and new then
      counted[#counted + 1] = unit
      known[unit] = true
    end
    if taken == 1 and (new or cancelled) then write_fields(memory, outputs[i]) end
  end
end
if #done > 0 then state = state or known_state(record, done[1], ttl) end
if state and #done > 0 then
  state = record_steps(record, state, done, ttl)
  for _, text in ipairs(done) do
    if had_failed(text) then state = revived(record, state, text, first_keys(4, callbacks), ttl) end
  end
end
if #counted > 0 then
  if late then
    for _, unit in ipairs(counted) do count_late({barrier = barrier, unit = unit}, ttl) end
  else
    count_units(barrier, counted, ttl)
  end
  local walked = {n = callbacks, first_key = 4, released = 0}
  prolong_waiting(walked, ttl)
  keep_memory(memory, memory_ttl, ttl, walked, false)
elseif cancelled then
  keep_memory(memory, memory_ttl, ttl, no_walk(), false)
end
return left
