-- SLACK: the seconds that a lifetime may fall short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
