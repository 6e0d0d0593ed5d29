-- Take, renew or give back the right to work on a run. Returns {time, whether the asker has it, head}.

local stream, owner, lease, gone = take(), take(), number(), take()
local head = P .. 'run:' .. stream
local known = redis.call('HMGET', head, 'owner', 'lease_until_ms')
local taken = 0
if known[1] then
  local is_free = tonumber(known[2]) <= now or known[1] == gone
  if known[1] == owner or lease > 0 and is_free then
    taken = 1
    redis.call('HSET', head, 'owner', owner, 'lease_until_ms', lease > 0 and text(now + lease) or '0')
  end
end
return {text(now), taken, redis.call('HGETALL', head)}
