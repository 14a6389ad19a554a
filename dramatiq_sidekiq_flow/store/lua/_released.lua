-- RELEASED_TTL: seconds, a day.  A released barrier is kept so long in case a duplicate
-- arrives late.  A text, since Redis formats numbers of Lua as floats.

local RELEASED_TTL = '86400'
