-- Forget a run. Returns whether there was one.

local stream = take()
local known = redis.call('HMGET', P .. 'run:' .. stream, 'status', 'agent', 'correlation')
if not known[1] then
  return 0
end
unlist_run(stream, known[1], known[2])
redis.call('ZREM', P .. 'streams', stream)
redis.call('ZREM', P .. 'of:' .. known[3], stream)
redis.call('DEL', P .. 'run:' .. stream, P .. 'log:' .. stream, P .. 'snap:' .. stream, P .. 'snaps:' .. stream)
return 1
