-- Writes fields of a run's memory, or of a registry, and prolongs it to at least a ttl.
--
-- KEYS: the hash
-- ARGV: ttl in seconds, then pairs of name, JSON
-- Returns: 1

-- @include _slices
-- @include _prolong

call_in_slices('HSET', KEYS[1], ARGV, 2, #ARGV)
prolong(KEYS[1], tonumber(ARGV[1]))
return 1
