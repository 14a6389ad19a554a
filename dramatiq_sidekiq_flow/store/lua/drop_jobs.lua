-- Removes jobs from a queue, or from a set.  A job that has left the place meanwhile is
-- left out.  Safe to send twice.
--
-- KEYS: queue, or other list of jobs; or set
-- ARGV: index in the list at which the jobs were found, counted from its head, number of
--       elements to look at from there, a text that no job has, the jobs
-- Returns: number of jobs removed | {'TYPE', key} nothing written

-- @include _take_jobs

local place = KEYS[1]
local kind = redis.call('TYPE', place).ok
if kind == 'none' then return 0 end
if kind == 'zset' then
  local removed = 0
  for i = 4, #ARGV, 1000 do
    removed = removed + redis.call('ZREM', place, unpack(ARGV, i, math.min(i + 999, #ARGV)))
  end
  return removed
end
if kind ~= 'list' then return {'TYPE', place} end
local refused = cannot_take(place)
if refused then return refused end
local jobs = {unpack(ARGV, 4)}
local indexes = find_taken(place, tonumber(ARGV[1]), tonumber(ARGV[2]), jobs)
if #indexes == 0 then return 0 end
return take_jobs(place, indexes, ARGV[3])
