-- Forget what is kept no longer among the next names of a kind. Returns how many, and the last name that was looked at.

local kind, keep, from, limit = take(), number(), take(), number()
local names = redis.call('ZRANGEBYLEX', P .. 'guards:' .. kind, from, '+', 'LIMIT', '0', text(limit))
local forgotten = 0
for _, name in ipairs(names) do
  local d = {key = P .. 'guard:' .. kind .. ':' .. name, keep = keep}
  if not find(d) then
    redis.call('DEL', d.key)
    redis.call('ZREM', P .. 'guards:' .. kind, name)
    forgotten = forgotten + 1
  end
end
return {forgotten, names[limit] or false}
