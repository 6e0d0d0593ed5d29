-- Values that consumers keep.

local function take_changes()
  local changes = {}
  for i = 1, number() do
    changes[i] = {scope = take(), key = take(), kind = take(), value = take(), expected = number()}
  end
  return changes
end

local function version_of(change)
  local kept = redis.call('HGET', P .. 'state:' .. change.scope, change.key)
  return kept and tonumber(kept:match('^%d+')) or 0
end

-- Returns the number of the first change whose value has another version, and that version.
local function find_conflict(changes)
  for i, change in ipairs(changes) do
    local version = version_of(change)
    if change.expected and change.expected ~= version then
      return i, version
    end
  end
end

local function apply(change)
  local values = P .. 'state:' .. change.scope
  local index, member, score = P .. 'keys:' .. change.scope, change.key, 0
  if change.scope:sub(1, #INBOX) == INBOX then
    -- Receipts are looked through by age, and not by name.
    index, member, score = P .. 'receipts', #change.scope .. ':' .. change.scope .. change.key, now
  end
  if change.kind == 'forget' then
    redis.call('HDEL', values, change.key)
    redis.call('ZREM', index, member)
  else
    redis.call('HSET', values, change.key, version_of(change) + 1 .. ' ' .. now .. ' ' .. change.value)
    redis.call('ZADD', index, score, member)
  end
end
