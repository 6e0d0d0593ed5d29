-- Forget records up to a version that has a snapshot. Returns how many.

local stream, through = take(), take()
local head = P .. 'run:' .. stream
if redis.call('HEXISTS', P .. 'snap:' .. stream, through) == 0 then
  return 0
end
local transient = redis.call('HGET', head, 'transient')
if transient and tonumber(transient) <= tonumber(through) then
  if transient ~= through then
    drop_snapshot(stream, transient)
  end
  redis.call('HDEL', head, 'transient')
end
return redis.call('XTRIM', P .. 'log:' .. stream, 'MINID', '=', text(tonumber(through) + 1) .. '-0')
