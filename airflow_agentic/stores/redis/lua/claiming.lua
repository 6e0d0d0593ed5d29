-- Leasing what is ready, and what was leased for too long.

-- An entry of a stream that we did not write: it becomes a dead letter, so that somebody sees it.
local function bury_foreign(mailbox, priority, id, fields)
  local stream = P .. 'q:' .. priority .. ':' .. mailbox
  local said = {}
  for i = 1, #fields, 2 do
    said[#said + 1] = fields[i] .. '=' .. fields[i + 1]
  end
  redis.call('XDEL', stream, id)
  local n = text(redis.call('INCR', P .. 'n'))
  local reason = 'foreign: somebody else wrote the entry ' .. id .. ' into the stream ' .. stream
  local d = {n = n, mb = mailbox, st = 'X', at = 0, mx = 1, vi = now, pr = priority, re = reason, id = 'foreign-' .. n,
    so = stream, se = NOW}
  redis.call('SET', P .. 'e:' .. n, table.concat(said, '\n'))
  redis.call('HSET', P .. 'm:' .. d.id, d.so, n .. ' ')
  list_dead(d)
  note(d, 'reject', '', reason)
  save(d)
end

-- Read the first entries of a stream. Returns those that are ours, and how many were not.
local function read_stream(mailbox, priority, want)
  local ours, others = {}, 0
  local stream = P .. 'q:' .. priority .. ':' .. mailbox
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', text(want))) do
    local id, fields = entry[1], entry[2]
    local d = fields[1] == 'd' and load(fields[2])
    if d and d.sid and d.mb == mailbox and d.pr == priority and text(d.vi) .. '-' .. d.n == id then
      ours[#ours + 1] = {n = d.n, vi = d.vi, id = id, stream = stream}
    else
      bury_foreign(mailbox, priority, id, fields)
      others = others + 1
    end
  end
  return ours, others
end

local function is_earlier(a, b)
  if a.vi ~= b.vi then
    return a.vi < b.vi
  end
  return tonumber(a.n) < tonumber(b.n)
end

-- Add what can be claimed of one priority to `due`, in order and at most `want`. Returns how many entries were not ours.
local function find_due(mailbox, priority, want, due)
  local found, others = read_stream(mailbox, priority, want)
  local queued = #found
  for _, from in ipairs({'x:', 't:'}) do
    local key = P .. from .. priority .. ':' .. mailbox
    local timed = redis.call('ZRANGEBYSCORE', key, '-inf', NOW, 'WITHSCORES', 'LIMIT', '0', text(want))
    for i = 1, #timed, 2 do
      found[#found + 1] = {n = text(timed[i]), vi = tonumber(timed[i + 1]), key = key}
    end
  end
  if #found > queued then
    table.sort(found, is_earlier)
  end
  for i = 1, math.min(want, #found) do
    due[#due + 1] = found[i]
  end
  return others
end

-- Lease one delivery, or bury it; see Kept.taken of the store in memory.
local function lease(found, wanted, claims)
  local d = load(found.n)
  if not d then
    redis.call('ZREM', found.key, padded(found.n))
    return
  end
  if d.st == 'L' then
    note(d, 'lease-expired', d.ow, 'the lease ended before the delivery was settled')
    if d.at >= d.mx then
      return bury(d, 'attempts spent: the lease of the last one (' .. d.ow .. ') ended')
    end
  end
  if d.ex and d.ex <= now then
    return expire(d)
  end
  if d.sid then
    redis.call('XDEL', found.stream, found.id)
    redis.call('ZREM', P .. 'c:' .. d.mb, d.n)
    d.sid = nil
  elseif d.st == 'R' then
    leave(d)
  end
  d.st, d.at, d.vi, d.ow = 'L', d.at + 1, now + wanted.lease, wanted.owner
  d.tk = wanted.seed .. d.n
  redis.call('ZADD', P .. 'x:' .. box(d), text(d.vi), padded(d.n))
  save(d)
  local envelope = redis.call('GET', P .. 'e:' .. (d.ho or d.n)) or ''
  claims[#claims + 1] = {format('%s %d %d %d %s %s', d.n, d.at, d.mx, d.vi, d.pr, d.tk), envelope, d.ok or false}
end

-- Returns how many deliveries were found; they are in `claims`, or were buried.
local function claim(wanted, claims)
  local due, others = {}, 0
  for priority in priorities_of(wanted.mailbox):gmatch('.') do
    if #due < wanted.limit then
      others = others + find_due(wanted.mailbox, priority, wanted.limit - #due, due)
    end
  end
  for _, found in ipairs(due) do
    lease(found, wanted, claims)
  end
  return #due + others
end

local function take_wanted()
  local limit, lease, seed = take():match('^(%d+) (%d+) (%x+)$')
  return {limit = tonumber(limit), lease = tonumber(lease), seed = seed, mailbox = take(), owner = take()}
end
