-- Deliveries, and the sets that they are in. A delivery that is
--   ready and waits for its lane   is in w
--   ready since it was sent        is in c, and in the stream q
--   ready again, or for later      is in t; and in c, or in f and g until its time has come (g1, if it was tried before)
--   leased                         is in x
--   done or dead                   is in done or dead
-- Its fields: n number · mb mailbox · st state · at attempts · mx most attempts · vi visible at · up updated at
-- pr priority · ok ordering key · ex expires at · tk token · ow owner · re reason · rd redrives
-- wa waits for its lane · sid is in the stream · ho number of the message's first delivery, if it is another one.
-- The first one has those of the message: id · so source · co correlation id, if it is another · se sent at
-- ds numbers of the other deliveries · le how many are not done, if there are others.

-- What is loaded twice is the same table, so that no change is lost.
local loaded = {}

local function load(n)
  local d = loaded[n]
  if not d then
    local packed = redis.call('GET', P .. 'd:' .. n)
    d = packed and cmsgpack.unpack(packed)
    loaded[n] = d
  end
  return d
end

local function save(d)
  d.up, loaded[d.n] = now, d
  redis.call('SET', P .. 'd:' .. d.n, cmsgpack.pack(d))
end

local function note(d, event, actor, detail)
  redis.call('RPUSH', P .. 'h:' .. d.n, cjson.encode({now, event, d.at, actor, detail}))
end

local function box(d)
  return d.pr .. ':' .. d.mb
end

local function lane(d)
  -- No mailbox has a slash in its name.
  return P .. 'lane:' .. d.mb .. '/' .. d.ok
end

local function priorities_of(mailbox)
  return redis.call('HGET', P .. 'mailboxes', mailbox) or ''
end

-- Put a ready delivery where it is found when its time has come.
local function place(d)
  local at = text(d.vi)
  redis.call('ZADD', P .. 't:' .. box(d), at, padded(d.n))
  if d.vi <= now then
    redis.call('ZADD', P .. 'c:' .. d.mb, d.n, d.n)
  else
    redis.call('ZADD', P .. 'f:' .. d.mb, d.n, d.n)
    redis.call('ZADD', P .. (d.at == 0 and 'g0:' or 'g1:') .. d.mb, at, d.n)
  end
end

local function list_dead(d)
  redis.call('ZADD', P .. 'dead:' .. d.mb, d.n, d.n)
  redis.call('ZADD', P .. 'dead', d.n, d.n)
end
