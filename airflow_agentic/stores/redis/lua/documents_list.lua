-- Read names of a kind, in order, and what is known of each.

local kind, keep, from, to, limit = take(), number(), take(), take(), number()
local found = {}
for i, name in ipairs(redis.call('ZRANGEBYLEX', P .. 'guards:' .. kind, from, to, 'LIMIT', '0', text(limit))) do
  found[i] = {name, find({key = P .. 'guard:' .. kind .. ':' .. name, keep = keep})}
end
return found
