-- Read names of the runs that come first in the order of listings, with the time of that below zero, from each of some sets:
-- from the beginning, or behind the place of one that was read before.

-- By bytes; Lua itself compares as the server's locale says.
local function is_behind(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then
      return x > y
    end
  end
  return #a > #b
end

local function first_behind(key, at, name)
  local low = redis.call('ZCOUNT', key, '-inf', '(' .. at)
  local high = low + redis.call('ZCOUNT', key, at, at)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_behind(redis.call('ZRANGE', key, text(middle), text(middle))[1], name) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local limit, after = number(), take() == '1' and {at = take(), name = take()}
local found = {}
for i = 1, number() do
  local key = P .. 'runs:' .. take()
  local first = after and first_behind(key, after.at, after.name) or 0
  found[i] = redis.call('ZRANGE', key, text(first), text(first + limit - 1), 'WITHSCORES')
end
return found
