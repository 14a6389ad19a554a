-- Fields of a run's memory in the arguments.
--
-- In ARGV, from a on: number of fields, per field: name, JSON
--
-- read_fields(a)            -> the fields, and the index behind them
-- write_fields(key, fields): writes them; the caller has checked the type of the key

-- @include _slices

local function read_fields(a)
  local n = tonumber(ARGV[a])
  local last = a + 2 * n
  return {n = n, first = a + 1, last = last}, last + 1
end

local function write_fields(key, fields)
  call_in_slices('HSET', key, ARGV, fields.first, fields.last)
end
