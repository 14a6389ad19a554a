-- Ends a step that a tree replaces: takes its job out of flight, writes its output to the
-- memory, and writes the plan of the tree, whose jobs carry the callbacks of the step.
-- Of a paused run, the plan is parked.  Safe to send twice.
--
-- KEYS: in-flight hash, memory hash ('' = none), swf:released:JID of a step without
--       callbacks ('' = it has some), record (see _record), per callback from the top:
--       BARRIER, then the plan's (see _plan)
-- ARGV: receipt, unit (the jid), seconds that the barriers live from now on, seconds
--       that the memory lives, the step's text (see _record), then for a run with numbered
--       steps ('' = without): its number of steps for which the tree was numbered, that
--       number with the tree, number of steps of the tree that are in fallbacks, number of
--       the step, what its record holds of the tree; then
--       the fields' (see _fields), kind of the callback at the top ('' = none, see _walk),
--       number of callbacks, the plan's
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TOTAL', number of steps of the run now, '' = none} nothing written: another step
--       was replaced first, number the tree again
--       | {'EXPIRED', BARRIER} | {'TYPE', key} | {'STAGE', key} nothing written
--       | {'CANCELLED'} done, and the run is cancelled: nothing of it starts
--
-- A job may be delivered twice, and only one delivery may go on.  In the barrier of a group
-- the step is noted as counted, and nothing is counted: the last step of the tree is.
-- The barrier of a chain is released, and the plan has another one in its place.  A step
-- without callbacks has a marker.

-- @include _types
-- @include _rights
-- @include _walk
-- @include _fields
-- @include _plan
-- @include _record

local in_flight, memory, marker, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local receipt, unit, ttl, memory_ttl, text = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local numbered, total, skipped, step, added = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local fields, a = read_fields(11)
local top, callbacks = ARGV[a], tonumber(ARGV[a + 1])

-- Reads.
local found, wrong = checked('HEXISTS', in_flight, receipt)
if wrong then return wrong end
if found == 0 then return {'GONE'} end
local state = record_state(record)
local cancelled, parked = state == 'cancelled', state == 'paused' and record or nil
local walked = no_walk()
if not cancelled and top ~= '' then
  walked, wrong = walk(unit, 5, a, false, record)
  if not walked then return wrong end
end
if fields.n > 0 then
  if not type_is(memory, 'hash') then return {'TYPE', memory} end
  wrong = denied('HSET', memory, '', '')
  if wrong then return wrong end
end
local starts = not cancelled and walked.new and (marker == '' or redis.call('EXISTS', marker) == 0)
local plan
if starts then
  if numbered ~= '' then
    local now = redis.pcall('HGET', record, 'total')
    if now ~= numbered then return {'TOTAL', type(now) == 'string' and now or ''} end
  end
  wrong = marker ~= '' and denied('SET', marker, '1') or top ~= '' and denied('SADD', KEYS[5] .. ':u', '') or nil
  if wrong then return wrong end
  plan, wrong = read_plan(5 + callbacks, a + 2, nil, parked)
  if not plan then return wrong end
end

-- Writes.  HDEL comes first: Redis allows it when it is out of memory, and after it also
-- the others.
redis.call('HDEL', in_flight, receipt)
if parked then ttl = math.max(ttl, PARKED_TTL) end
write_fields(memory, fields)
if plan then
  if marker ~= '' then redis.call('SET', marker, '1', 'EX', RELEASED_TTL) end
  if top == 'f' then
    redis.call('SETEX', KEYS[5], RELEASED_TTL, '0')
    redis.call('SETEX', KEYS[5] .. '_ran', RELEASED_TTL, '0')
    local disarmed = walked.counts[1] and walked.counts[1].disarmed
    if disarmed then redis.pcall('HDEL', disarmed, KEYS[5]) end
  elseif top ~= '' then
    redis.call('SADD', KEYS[5] .. ':u', unit)
    outlive(KEYS[5] .. ':u', math.max(ttl, redis.call('TTL', KEYS[5])))
  end
  write_plan(plan)
end
for i = top == 'f' and 6 or 5, 4 + callbacks do
  for _, suffix in ipairs({'', '_ran', ':u'}) do outlive(KEYS[i] .. suffix, ttl) end
end
if memory ~= '' then outlive(memory, math.max(ttl, memory_ttl)) end
state = state or known_state(record, text, ttl)
if state then
  if plan and numbered ~= '' then
    redis.pcall('HSET', record, 'total', total, 'added', '1')
    if skipped ~= '0' then redis.pcall('HINCRBY', record, 'skipped', skipped) end
    redis.pcall('HSET', record .. ':added', step, added)
    local left = redis.pcall('TTL', record)
    if type(left) == 'number' then outlive(record .. ':added', left) end
  end
  state = record_steps(record, state, {text}, ttl)
  if had_failed(text) then state = revived(record, state, text, first_keys(5, callbacks), ttl) end
  if plan then prolong_record(record, state, ttl) end
end
return {cancelled and 'CANCELLED' or 'DONE'}
