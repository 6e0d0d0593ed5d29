-- Read names of the runs that were written last, with the time of that below zero, from each of some sets.

local limit = take()
local found = {}
for i = 1, number() do
  found[i] = redis.call('ZRANGE', P .. 'runs:' .. take(), '0', text(tonumber(limit) - 1), 'WITHSCORES')
end
return found
