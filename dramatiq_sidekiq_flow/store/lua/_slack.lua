-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
