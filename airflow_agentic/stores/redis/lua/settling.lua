-- How leased deliveries end or go back.

local function take_settlements()
  local settlements = {}
  for i = 1, number() do
    local n, outcome, delay, token = take():match('^(%d+) (%a+) (%-?%d+) (.*)$')
    settlements[i] = {n = n, token = token, outcome = outcome, delay = delay, reason = take()}
  end
  return settlements
end

-- Load the deliveries. Returns the first one that is not held any more, and how many end in each mailbox.
local function find_stale(settlements)
  local seen, ended = {}, {}
  for _, s in ipairs(settlements) do
    local d = load(s.n)
    if not d or d.st ~= 'L' or d.tk ~= s.token or d.vi <= now or seen[s.n] then
      return s.n
    end
    seen[s.n], s.d = true, d
    s.spent = s.outcome == 'nack' and d.at >= d.mx
    if s.outcome == 'ack' or s.outcome == 'reject' or s.spent then
      ended[d.mb] = (ended[d.mb] or 0) + 1
    end
  end
  return nil, ended
end

local function finish(d)
  d.re = nil
  local home = d.ho and load(d.ho) or d
  if home.le then
    home.le = home.le - 1
  end
  close(d, 'D')
  if home ~= d then
    redis.call('SET', P .. 'd:' .. home.n, cmsgpack.pack(home))
  end
  if (home.le or 0) == 0 then
    -- The message is done everywhere: it can be forgotten when it is old.
    redis.call('ZADD', P .. 'ended', home.se, padded(home.n))
  end
end

local function give_back(d, visible_at, attempts)
  leave(d)
  d.st, d.at, d.vi = 'R', attempts, visible_at
  place(d)
  save(d)
end

local function settle(settlements)
  for _, s in ipairs(settlements) do
    local d = s.d
    if s.outcome == 'ack' then
      finish(d)
    elseif s.outcome == 'release' then
      give_back(d, now + s.delay, d.at - 1)
    else
      note(d, s.outcome, d.ow, s.reason)
      if s.outcome == 'reject' then
        bury(d, s.reason)
      elseif s.spent then
        bury(d, s.reason == '' and 'attempts spent' or 'attempts spent: ' .. s.reason)
      else
        d.re = s.reason
        give_back(d, now + s.delay, d.at)
      end
    end
  end
end
