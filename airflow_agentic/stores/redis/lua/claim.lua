-- Lease deliveries. Returns {claims, found}: all that was found may have been buried, and there can be more behind it.

local wanted = take_wanted()

-- What should be claimable and was not found is brought back: somebody trimmed the stream, or deleted it. Returns whether
-- there was any.
local function heal()
  local lost = redis.call('ZRANGE', P .. 'c:' .. wanted.mailbox, '0', '99')
  for _, n in ipairs(lost) do
    local d = load(n)
    if d and d.st == 'R' and not d.wa then
      leave(d)
      place(d)
      save(d)
    else
      redis.call('ZREM', P .. 'c:' .. wanted.mailbox, n)
    end
  end
  return #lost > 0
end

local claims, found, total, healed = {}, 0, 0, false
repeat
  found = claim(wanted, claims)
  total = total + found
  if found == 0 and not healed then
    healed = true
    found = heal() and 1 or 0
  end
until #claims > 0 or found == 0 or total >= 200
return {claims, found}
