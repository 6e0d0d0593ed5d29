-- Make dead deliveries ready again. Returns their numbers.

local q = take_query()
local actor, reason, spacing, passed = take(), take(), number(), number()
local targets = {}
for i = 1, number() do
  targets[i] = take()
end

local function copy(original, mailbox, visible_at)
  local home = original.ho and load(original.ho) or original
  local n = text(redis.call('INCR', P .. 'n'))
  home.le, home.ds = (home.le or 1) + 1, home.ds or {}
  home.ds[#home.ds + 1] = n
  redis.call('SET', P .. 'd:' .. home.n, cmsgpack.pack(home))
  create({n = n, mb = mailbox, at = 0, mx = original.mx, vi = visible_at, pr = original.pr, ok = original.ok,
    ho = home.n})
end

local redriven = {}
for i, d in ipairs(matching(q)) do
  local visible_at = now + (passed + i - 1) * spacing
  note(d, 'redrive', actor, reason)
  leave(d)
  d.mb, d.st, d.at, d.vi, d.re, d.rd = targets[1] or d.mb, 'R', 0, visible_at, nil, (d.rd or 0) + 1
  admit(d)
  save(d)
  for j = 2, #targets do
    copy(d, targets[j], visible_at)
  end
  redriven[i] = d.n
end
return redriven
