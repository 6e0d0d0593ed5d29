-- Make leases end later. Returns delivery and end of those that are held still.

local ends = now + number()
local held = {}
for _ = 1, number() do
  local n, token = take(), take()
  local d = load(n)
  if d and d.st == 'L' and d.tk == token and d.vi > now then
    d.vi = ends
    redis.call('ZADD', P .. 'x:' .. box(d), text(ends), padded(n))
    save(d)
    held[#held + 1] = n
    held[#held + 1] = ends
  end
end
return held
