-- Read all that is kept of one named agent, or of all of them, and the time.

local asked = take()
local found = {}
for _, name in ipairs(asked ~= '' and {asked} or redis.call('SMEMBERS', P .. 'agents')) do
  local about = redis.call('HGETALL', P .. 'agent:' .. name)
  if #about > 0 then
    found[#found + 1] = {name, about, redis.call('HGETALL', P .. 'instances:' .. name)}
  end
end
return {now, found}
