-- Set the state of an instance, and add to the numbers of its name.

local id, state, reason, alive_for = take(), take(), take(), number()
local name = redis.call('HGET', P .. 'names', id)
if not name then
  return
end
local agent, instances = P .. 'agent:' .. name, P .. 'instances:' .. name
local kept = cjson.decode(redis.call('HGET', instances, id))
kept.state, kept.reason, kept.at, kept['until'] = state, reason, now, now + alive_for
redis.call('HSET', instances, id, cjson.encode(kept))
for _, count in ipairs({'processed', 'succeeded', 'failed', 'degraded'}) do
  redis.call('HINCRBY', agent, count, take())
end
local seconds, longest, last_error = number(), number(), take()
local total = tonumber(redis.call('HGET', agent, 'total_seconds') or 0) + seconds
longest = math.max(tonumber(redis.call('HGET', agent, 'max_seconds') or 0), longest)
-- 17 digits: as many as a double has.
redis.call('HSET', agent, 'total_seconds', string.format('%.17g', total), 'max_seconds', string.format('%.17g', longest))
if last_error ~= '' then
  redis.call('HSET', agent, 'last_error', last_error)
end
