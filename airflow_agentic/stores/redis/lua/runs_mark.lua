-- Say how a run stands, without adding to its journal. Returns whether there is one.

local stream, status, error, category = take(), take(), take(), take()
local head = P .. 'run:' .. stream
local known = redis.call('HMGET', head, 'status', 'agent', 'updated_at_ms')
if not known[1] then
  return 0
end
unlist_run(stream, known[1], known[2])
list_run(stream, status, known[2], known[3])
redis.call('HSET', head, 'status', status, 'error', error, 'category', category)
return 1
