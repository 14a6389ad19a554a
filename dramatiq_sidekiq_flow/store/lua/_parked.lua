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

-- @include _types
-- @include _rights
-- @include _slices

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
