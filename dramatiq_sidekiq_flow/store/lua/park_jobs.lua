-- Parks jobs of a paused run that wait in a queue, or in a set.  A job that has left the
-- place meanwhile is left out.  Safe to send twice.
--
-- KEYS: queue, or other list of jobs; or set; record (see _record)
-- ARGV: index in the list at which the jobs were found, counted from its head, number of
--       elements to look at from there, a text that no job has, what their entries begin
--       with (see _parked): qNAME, or without a score 's' or 'r'; the jobs, some hundreds.
--       A step that waits for a signal in `schedule` goes to its queue, and looks for it there
-- Returns: number of jobs parked; 0 if the run is not paused | {'TYPE', key} nothing written
--
-- Jobs of a queue are parked at the head: those of the next call were pushed before them.

-- @include _take_jobs
-- @include _record
-- @include _parked

local place, record, label = KEYS[1], KEYS[2], ARGV[4]
local kind = redis.call('TYPE', place).ok

-- Reads.
if kind == 'none' or record_state(record) ~= 'paused' then return 0 end
if kind ~= 'zset' and kind ~= 'list' then return {'TYPE', place} end
local refused = cannot_park(record)
if refused then return refused end
local entries, jobs = {}, {unpack(ARGV, 5)}

if kind == 'zset' then
  local members = {}
  for _, job in ipairs(jobs) do
    local score = redis.call('ZSCORE', place, job)
    if score then
      members[#members + 1] = job
      entries[#entries + 1] = (string.sub(label, 1, 1) == 'q' and label or label .. score) .. '\0' .. job
    end
  end
  if #members == 0 then return 0 end
  -- Redis allows ZREM when it is out of memory, and after it also the others.
  call_in_slices('ZREM', place, members, 1, #members)
  park(record, 'RPUSH', entries)
  return #members
end

refused = cannot_take(place)
if refused then return refused end
local indexes, taken = find_taken(place, tonumber(ARGV[1]), tonumber(ARGV[2]), jobs)
if #indexes == 0 then return 0 end
for i, job in ipairs(taken) do entries[i] = label .. '\0' .. job end
take_jobs(place, indexes, ARGV[3])
park(record, 'LPUSH', entries)
return #taken
