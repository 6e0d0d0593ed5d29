-- Bury what has expired, and forget what is done and old. Returns {envelopes, more}: with `more`, ask again.

local MOST = 1000
local before = now - number()
local limit = math.min(number(), MOST)
local more = 0

local function bury_expired()
  local passed = 0
  repeat
    local late = redis.call('ZRANGEBYSCORE', P .. 'ttl', '-inf', now, 'LIMIT', passed, MOST)
    for _, n in ipairs(late) do
      local d = load(n)
      if d and d.st == 'R' then
        expire(d)
        more = 1
      elseif d and d.st == 'L' then
        passed = passed + 1
      else
        redis.call('ZREM', P .. 'ttl', n)
      end
    end
  until #late < MOST or more == 1
end

-- A mailbox without a delivery is as if it had never been.
local function forget_mailbox(mailbox)
  local priorities = priorities_of(mailbox)
  local kept = {P .. 'c:' .. mailbox, P .. 'f:' .. mailbox, P .. 'w:' .. mailbox, P .. 'done:' .. mailbox,
    P .. 'dead:' .. mailbox}
  local entries = 0
  for priority in priorities:gmatch('.') do
    kept[#kept + 1] = P .. 'x:' .. priority .. ':' .. mailbox
    entries = entries + redis.call('XLEN', P .. 'q:' .. priority .. ':' .. mailbox)
  end
  if entries == 0 and redis.call('EXISTS', unpack(kept)) == 0 then
    for priority in priorities:gmatch('.') do
      redis.call('DEL', P .. 'q:' .. priority .. ':' .. mailbox)
    end
    redis.call('HDEL', P .. 'mailboxes', mailbox)
  end
end

local function forget(home, mailboxes)
  local about = load(home)
  if not about then
    return nil
  end
  local envelope = redis.call('GET', P .. 'e:' .. home)
  local numbers = {home, unpack(about.ds or {})}
  for _, n in ipairs(numbers) do
    local d = load(n)
    if d and d.st then
      redis.call('ZREM', P .. 'done:' .. d.mb, n)
      mailboxes[d.mb] = true
    end
    redis.call('DEL', P .. 'd:' .. n, P .. 'h:' .. n)
  end
  redis.call('DEL', P .. 'e:' .. home)
  redis.call('HDEL', P .. 'm:' .. about.id, about.so)
  if about.co then
    redis.call('ZREM', P .. 'r:' .. about.co, home)
  end
  return envelope
end

bury_expired()
local envelopes, mailboxes = {}, {}
if limit > 0 then
  local old = redis.call('ZRANGEBYSCORE', P .. 'ended', '-inf', '(' .. before, 'LIMIT', 0, limit)
  for i, member in ipairs(old) do
    envelopes[i] = forget(member:match('x%d+$') or text(member), mailboxes) or ''
    redis.call('ZREM', P .. 'ended', member)
  end
  more = #old == MOST and 1 or more
end
for mailbox in pairs(mailboxes) do
  forget_mailbox(mailbox)
end
local receipts = redis.call('ZRANGEBYSCORE', P .. 'receipts', '-inf', '(' .. before, 'LIMIT', 0, MOST)
for _, member in ipairs(receipts) do
  local length, rest = member:match('^(%d+):(.*)$')
  redis.call('HDEL', P .. 'state:' .. rest:sub(1, length), rest:sub(length + 1))
  redis.call('ZREM', P .. 'receipts', member)
end
more = #receipts == MOST and 1 or more
return {envelopes, more}
