-- Messages: their envelopes, what they are found by, and their deliveries.

local function take_message()
  local m = {id = take(), source = take(), correlation = take(), key = take(), envelope = take(), addresses = {}}
  local priority, delay, ttl, count = take():match('^(%d) (%S+) (%S+) (%d+)$')
  m.priority, m.delay, m.ttl = priority, delay, tonumber(ttl)
  for i = 1, count do
    local attempts, limit, overflow = take():match('^(%S+) (%S+) (%S+)$')
    local a = {attempts = tonumber(attempts), limit = tonumber(limit), overflow = overflow, mailbox = take()}
    if overflow == 'dead' then
      a.dead = take()
    elseif overflow == 'dead-letter' then
      a.full = take()
    end
    m.addresses[i] = a
  end
  return m
end

local function open_in(mailbox)
  local count = redis.call('ZCARD', P .. 'c:' .. mailbox) + redis.call('ZCARD', P .. 'f:' .. mailbox)
    + redis.call('ZCARD', P .. 'w:' .. mailbox)
  for priority in priorities_of(mailbox):gmatch('.') do
    count = count + redis.call('ZCARD', P .. 'x:' .. priority .. ':' .. mailbox)
  end
  return count
end

-- Who sent it, if it is known: the number of its first delivery, and the call that it came with.
local function sent_before(m)
  local known = redis.call('HGET', P .. 'm:' .. m.id, m.source)
  if known then
    return known:match('^(%S+) (.*)$')
  end
end

-- Decide what becomes of messages before anything is written. `ended` says how many deliveries of a mailbox end before.
-- Returns the first mailbox that gets open deliveries and has no room for them, and its limit.
local function find_no_room(messages, ended)
  local open, came, limits, refusing, sent = {}, {}, {}, {}, {}
  for _, m in ipairs(messages) do
    for _, a in ipairs(m.addresses) do
      if a.limit > 0 then
        open[a.mailbox] = open[a.mailbox] or open_in(a.mailbox) - (ended[a.mailbox] or 0)
        if a.overflow == 'refuse' then
          if not limits[a.mailbox] then
            refusing[#refusing + 1] = a.mailbox
          end
          limits[a.mailbox] = a.limit
        end
      end
    end
  end
  for _, m in ipairs(messages) do
    local identity = #m.source .. ':' .. m.source .. m.id
    local home, call = sent_before(m)
    m.call, m.is_first = call, not sent[identity]
    m.duplicate = home or sent[identity]
    sent[identity] = true
    for _, a in ipairs(m.duplicate and {} or m.addresses) do
      local count = open[a.mailbox]
      if count and not a.dead and not (m.ttl and m.ttl <= 0) then
        if a.overflow == 'dead-letter' and a.limit > 0 and a.limit <= count then
          a.dead = a.full
        else
          open[a.mailbox], came[a.mailbox] = count + 1, true
        end
      end
    end
  end
  for _, mailbox in ipairs(refusing) do
    if came[mailbox] and open[mailbox] > limits[mailbox] then
      return mailbox, limits[mailbox]
    end
  end
end

-- Keep a delivery that is new; one with a reason is dead at once.
local function create(d, is_new)
  if d.re then
    register(d.mb)
    list_dead(d)
    d.st, d.ex = 'X', nil
  else
    d.st = 'R'
    admit(d, is_new)
    if d.ex then
      redis.call('ZADD', P .. 'ttl', text(d.ex), d.n)
    end
  end
  save(d)
end

local function add(m, call)
  local count = #m.addresses
  local last = redis.call('INCRBY', P .. 'n', text(count))
  -- A message that goes nowhere is kept all the same: under a name that no delivery has, in the order of the others.
  local home = count > 0 and text(last - count + 1) or 'x' .. text(redis.call('INCR', P .. 'x'))
  redis.call('SET', P .. 'e:' .. home, m.envelope)
  redis.call('HSET', P .. 'm:' .. m.id, m.source, home .. ' ' .. call)
  local about = {n = home, id = m.id, so = m.source, se = NOW}
  if m.correlation ~= '' then
    about.co = m.correlation
    redis.call('ZADD', P .. 'r:' .. m.correlation, text(last), home)
  end
  if count == 0 then
    save(about)
    redis.call('ZADD', P .. 'ended', NOW, padded(last) .. home)
  elseif count > 1 then
    about.le, about.ds = count, {}
  end
  local all = {about}
  for i, a in ipairs(m.addresses) do
    local d = all[i]
    if not d then
      d = {n = text(last - count + i), ho = home}
      all[i], about.ds[i - 1] = d, d.n
    end
    d.mb, d.at, d.mx, d.vi, d.pr, d.ok, d.re = a.mailbox, 0, a.attempts, now + m.delay, m.priority, m.key ~= '' and m.key or nil, a.dead
    if m.ttl and m.ttl > 0 then
      d.ex = now + m.ttl
    elseif m.ttl and not a.dead then
      note(d, 'expired', '', EXPIRED)
      d.re = EXPIRED
    end
  end
  for i = 1, count do
    create(all[i], true)
  end
end

local function take_messages()
  local messages = {}
  for i = 1, number() do
    messages[i] = take_message()
  end
  return messages
end

-- Returns for each message whether this call stored it: one digit each.
local function add_all(messages, call, is_again)
  local flags = {}
  for i, m in ipairs(messages) do
    if not m.duplicate then
      add(m, call)
    end
    -- Where the answer to this call was lost and it is asked again, it was this call that stored the message.
    flags[i] = (not m.duplicate or is_again and m.is_first and m.call == call) and '1' or '0'
  end
  return table.concat(flags)
end
