-- Takes jobs out of a list.
--
-- find_taken(place, from, most, jobs) -> indexes of these jobs in the list, from the head,
--       and the jobs there.  from: index at which they were found; most: number of elements
--       to look at from there.  Equal jobs are taken as often as they were found
-- cannot_take(place) -> nil, or an error reply
-- take_jobs(place, indexes, mark): removes what is there.  mark: a text that no job has
--
-- The jobs are looked up by their index, and are then removed together: LREM of each would
-- read the list as often as there are jobs.  Jobs that were pushed since have moved them
-- away from the head, and jobs that were fetched have not.

-- @include _rights

local function find_taken(place, from, most, jobs)
  local wanted, left = {}, #jobs
  for _, job in ipairs(jobs) do wanted[job] = (wanted[job] or 0) + 1 end
  local indexes, taken, read = {}, {}, 0
  while left > 0 and read < most do
    local slice = redis.call('LRANGE', place, from + read, from + read + 249)
    for offset, payload in ipairs(slice) do
      if (wanted[payload] or 0) > 0 then
        wanted[payload] = wanted[payload] - 1
        left = left - 1
        indexes[#indexes + 1] = from + read + offset - 1
        taken[#taken + 1] = payload
      end
    end
    read = read + #slice
    if #slice < 250 then break end
  end
  return indexes, taken
end

local function cannot_take(place)
  return denied('LSET', place, '0', '') or denied('LREM', place, '0', '')
end

local function take_jobs(place, indexes, mark)
  -- Redis allows LTRIM, which keeps all here, when it is out of memory, and after it also LSET.
  redis.call('LTRIM', place, 0, -1)
  for _, index in ipairs(indexes) do redis.call('LSET', place, index, mark) end
  local near_tail = indexes[1] > redis.call('LLEN', place) / 2
  return redis.call('LREM', place, near_tail and -#indexes or #indexes, mark)
end
