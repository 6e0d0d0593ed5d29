-- Deliveries that leave the set they are in, for good or for another one.

-- `vi` must be what it was when the delivery came there.
local function leave(d)
  if d.st == 'L' then
    redis.call('ZREM', P .. 'x:' .. box(d), padded(d.n))
  elseif d.st == 'X' then
    redis.call('ZREM', P .. 'dead:' .. d.mb, d.n)
    redis.call('ZREM', P .. 'dead', d.n)
  elseif d.wa then
    redis.call('ZREM', P .. 'w:' .. d.mb, d.n)
    d.wa = nil
  else
    redis.call('ZREM', P .. 'c:' .. d.mb, d.n)
    if d.sid then
      redis.call('XDEL', P .. 'q:' .. box(d), text(d.vi) .. '-' .. d.n)
      d.sid = nil
    else
      redis.call('ZREM', P .. 't:' .. box(d), padded(d.n))
      redis.call('ZREM', P .. 'f:' .. d.mb, d.n)
      redis.call('ZREM', P .. 'g0:' .. d.mb, d.n)
      redis.call('ZREM', P .. 'g1:' .. d.mb, d.n)
    end
  end
end

-- A delivery of a lane has ended: if it was the one that could be claimed, the next one can be.
local function unlane(d)
  redis.call('ZREM', lane(d), d.n)
  local first = redis.call('ZRANGE', lane(d), 0, 0)[1]
  local follower = first and load(first)
  if follower and follower.wa then
    leave(follower)
    place(follower)
    redis.call('SET', P .. 'd:' .. first, cmsgpack.pack(follower))
  end
end

-- End a delivery, as done (D) or dead (X). The caller says the reason.
local function close(d, state)
  local waited = d.wa
  leave(d)
  if state == 'X' then
    list_dead(d)
  else
    redis.call('ZADD', P .. 'done:' .. d.mb, d.n, d.n)
  end
  if d.ex then
    redis.call('ZREM', P .. 'ttl', d.n)
    d.ex = nil
  end
  d.st = state
  save(d)
  if d.ok then
    if waited then
      redis.call('ZREM', lane(d), d.n)
    else
      unlane(d)
    end
  end
end

local function bury(d, reason)
  d.re = reason
  close(d, 'X')
end

local function expire(d)
  note(d, 'expired', '', EXPIRED)
  bury(d, EXPIRED)
end
