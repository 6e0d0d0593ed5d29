-- Deliveries that come to a mailbox.

-- Make a mailbox known; and a priority that it has deliveries of: the highest first.
local function register(mailbox, priority)
  local known = redis.call('HGET', P .. 'mailboxes', mailbox)
  if known and (not priority or known:find(priority, 1, true)) then
    return
  end
  local priorities = {priority}
  for each in (known or ''):gmatch('.') do
    priorities[#priorities + 1] = each
  end
  table.sort(priorities, function(a, b) return a > b end)
  redis.call('HSET', P .. 'mailboxes', mailbox, table.concat(priorities))
end

-- The ids of a stream grow: what became visible later, or has a higher number, comes later. Where that cannot be (the
-- clock went back, or somebody else wrote an id from the future), the delivery goes elsewhere.
local function enqueue(d)
  local added = redis.pcall('XADD', P .. 'q:' .. box(d), text(d.vi) .. '-' .. d.n, 'd', d.n)
  if added.err then
    return false
  end
  redis.call('ZADD', P .. 'c:' .. d.mb, d.n, d.n)
  return true
end

-- Put a ready delivery where receivers find it, or into its lane. The caller saves it.
local function admit(d, is_new)
  register(d.mb, d.pr)
  if d.ok then
    local waits = redis.call('EXISTS', lane(d)) == 1
    redis.call('ZADD', lane(d), d.n, d.n)
    if waits then
      redis.call('ZADD', P .. 'w:' .. d.mb, d.n, d.n)
      d.wa = true
      return
    end
  end
  if is_new and d.vi <= now and enqueue(d) then
    d.sid = true
  else
    place(d)
  end
end
