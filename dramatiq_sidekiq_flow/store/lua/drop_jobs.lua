-- Removes jobs from a queue, or from a set.  A job that has left the place meanwhile is
-- left out.  Safe to send twice.
--
-- KEYS: queue, or other list of jobs; or set
-- ARGV: index in the list at which the jobs were found, counted from its head, number of
--       elements to look at from there, a text that no job has, the jobs
-- Returns: number of jobs removed | {'TYPE', key} nothing written
--
-- In a list the jobs are looked up by their index, and are then removed together: LREM
-- of each would read the list as often as there are jobs.  Jobs that were pushed since
-- have moved them away from the head, and jobs that were fetched have not.

-- @include _rights

local place, from, most, mark = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
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
local refused = denied('LSET', place, '0', '') or denied('LREM', place, '0', '')
if refused then return refused end

-- Equal jobs may be there more than once.
local wanted, left = {}, #ARGV - 3
for i = 4, #ARGV do wanted[ARGV[i]] = (wanted[ARGV[i]] or 0) + 1 end
local indexes, read = {}, 0
while left > 0 and read < most do
  local slice = redis.call('LRANGE', place, from + read, from + read + 249)
  for offset, payload in ipairs(slice) do
    if (wanted[payload] or 0) > 0 then
      wanted[payload] = wanted[payload] - 1
      left = left - 1
      indexes[#indexes + 1] = from + read + offset - 1
    end
  end
  read = read + #slice
  if #slice < 250 then break end
end
if #indexes == 0 then return 0 end

-- Writes.  Redis allows LTRIM, which keeps all here, when it is out of memory, and after it
-- also LSET.
redis.call('LTRIM', place, 0, -1)
for _, index in ipairs(indexes) do redis.call('LSET', place, index, mark) end
local near_tail = indexes[1] > redis.call('LLEN', place) / 2
return redis.call('LREM', place, near_tail and -#indexes or #indexes, mark)
