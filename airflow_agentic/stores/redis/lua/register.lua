-- Make a named agent known, with a new instance. Returns 0 if there is an instance of that id already.

local KEPT = number()
local id, name, profile, owner, alive_for = take(), take(), take(), take(), number()
local agent, instances = P .. 'agent:' .. name, P .. 'instances:' .. name
if redis.call('HEXISTS', P .. 'names', id) == 1 then
  return 0
end

local ended = {}
local known = redis.call('HGETALL', instances)
for i = 1, #known, 2 do
  local each = cjson.decode(known[i + 1])
  if each.state == 'shutdown' or each['until'] < now then
    each.id = known[i]
    ended[#ended + 1] = each
  end
end
table.sort(ended, function(a, b)
  if a.at ~= b.at then
    return a.at > b.at
  end
  return a.seq < b.seq
end)
for i = KEPT + 1, #ended do
  redis.call('HDEL', instances, ended[i].id)
  redis.call('HDEL', P .. 'names', ended[i].id)
end

local seq = redis.call('HINCRBY', agent, 'seq', 1)
local new = {seq = seq, state = 'initialized', reason = '', owner = owner, at = now, ['until'] = now + alive_for}
redis.call('HSET', agent, 'profile', profile)
redis.call('HSET', instances, id, cjson.encode(new))
redis.call('HSET', P .. 'names', id, name)
redis.call('SADD', P .. 'agents', name)
return 1
