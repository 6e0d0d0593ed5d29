-- Count the deliveries of mailboxes. Returns {counts, more}: with `more`, ask again for the right numbers.

local MOST = 1000

-- What was sent for later, or failed, becomes claimable when its time has come; claims see that by themselves.
local function promote(mailbox)
  local more = false
  for _, name in ipairs({'g0:', 'g1:'}) do
    local due = redis.call('ZRANGEBYSCORE', P .. name .. mailbox, '-inf', NOW, 'LIMIT', 0, MOST)
    for _, n in ipairs(due) do
      redis.call('ZREM', P .. name .. mailbox, n)
      redis.call('ZREM', P .. 'f:' .. mailbox, n)
      redis.call('ZADD', P .. 'c:' .. mailbox, n, n)
    end
    more = more or #due == MOST
  end
  return more
end

local function count(mailbox)
  local s = {c = 0, f = 0, w = 0, done = 0, dead = 0}
  for name in pairs(s) do
    s[name] = redis.call('ZCARD', P .. name .. ':' .. mailbox)
  end
  local scheduled = redis.call('ZCOUNT', P .. 'g0:' .. mailbox, '(' .. NOW, '+inf')
  local delayed = scheduled + redis.call('ZCOUNT', P .. 'g1:' .. mailbox, '(' .. NOW, '+inf')
  local newest = tonumber(redis.call('ZRANGE', P .. 'c:' .. mailbox, -1, -1)[1])
  local leased, expired, oldest = 0, 0, nil
  for priority in priorities_of(mailbox):gmatch('.') do
    local at = priority .. ':' .. mailbox
    leased = leased + redis.call('ZCARD', P .. 'x:' .. at)
    local ended = redis.call('ZRANGEBYSCORE', P .. 'x:' .. at, '-inf', NOW)
    expired = expired + #ended
    for _, n in ipairs(ended) do
      newest = math.max(newest or 0, tonumber(n))
    end
    local queued = redis.call('XRANGE', P .. 'q:' .. at, '-', '+', 'COUNT', 1)[1]
    local first = {queued and tonumber(queued[1]:match('^%d+'))}
    first[#first + 1] = tonumber(redis.call('ZRANGE', P .. 't:' .. at, 0, 0, 'WITHSCORES')[2])
    for _, visible_at in ipairs(first) do
      if visible_at <= now then
        oldest = math.min(oldest or visible_at, visible_at)
      end
    end
  end
  if s.c + s.f + s.w + leased + s.done + s.dead > 0 then
    return {mailbox, s.c + s.f + s.w, s.w, delayed, scheduled, leased, expired, s.done, s.dead,
      oldest and now - oldest or false, newest or false}
  end
end

local counts, more = {}, 0
for _ = 1, number() do
  local mailbox = take()
  if promote(mailbox) then
    more = 1
  end
  counts[#counts + 1] = count(mailbox)
end
return {counts, more}
