-- Read the newest snapshot up to a version. Returns {version, whether it is kept, value}, or nothing.

local stream, at = take(), take()
local version = redis.call('ZRANGE', P .. 'snaps:' .. stream, at, '-inf', 'BYSCORE', 'REV', 'LIMIT', '0', '1')[1]
if not version then
  return false
end
local kept = redis.call('HGET', P .. 'run:' .. stream, 'transient') ~= version
return {version, kept and 1 or 0, redis.call('HGET', P .. 'snap:' .. stream, version)}
