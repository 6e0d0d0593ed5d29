-- Read the values of a scope, by name.

local scope, limit = take(), number()
local names = redis.call('ZRANGEBYLEX', P .. 'keys:' .. scope, '-', '+', 'LIMIT', 0, limit)
local found = {}
for i, name in ipairs(names) do
  found[i] = {name, redis.call('HGET', P .. 'state:' .. scope, name)}
end
return found
