-- Read heads; of a run that is not there, nothing.

local found = {}
for i = 1, number() do
  found[i] = redis.call('HGETALL', P .. 'run:' .. take())
end
return found
