-- Which deliveries a query asks for.

local STATES = {R = {'c:', 'f:', 'w:'}, D = {'done:'}, X = {'dead:'}}

local function take_query()
  local function given()
    local value = take()
    return value ~= '' and value or nil
  end
  local q = {mailbox = given(), states = take(), message = given(), correlation = given()}
  local count = number()
  if count >= 0 then
    q.ids = {}
    for i = 1, count do
      q.ids[i] = number()
    end
  end
  q.after, q.limit = number(), number()
  return q
end

local function matches(d, q)
  if (q.mailbox and d.mb ~= q.mailbox) or (q.states ~= '' and not q.states:find(d.st, 1, true)) then
    return false
  end
  local home = (q.message or q.correlation) and d.ho and load(d.ho) or d
  return (not q.message or home.id == q.message) and (not q.correlation or (home.co or home.id) == q.correlation)
end

local function add_deliveries_of(home, numbers)
  local d = load(home)
  if d and d.st then
    numbers[#numbers + 1] = tonumber(d.n)
    for _, n in ipairs(d.ds or {}) do
      numbers[#numbers + 1] = tonumber(n)
    end
  end
end

local function numbers_of_messages(q)
  local numbers = {}
  for _, known in ipairs(redis.call('HVALS', P .. 'm:' .. (q.message or q.correlation))) do
    add_deliveries_of(known:match('^%S+'), numbers)
  end
  if not q.message then
    for _, home in ipairs(redis.call('ZRANGE', P .. 'r:' .. q.correlation, 0, -1)) do
      add_deliveries_of(home, numbers)
    end
  end
  return numbers
end

local function numbers_of_sets(q)
  local numbers = {}
  local function add_all(found)
    for _, n in ipairs(found) do
      numbers[#numbers + 1] = tonumber(n)
    end
  end
  local function add_set(name)
    add_all(redis.call('ZRANGEBYSCORE', P .. name, '(' .. q.after, '+inf', 'LIMIT', '0', q.limit))
  end
  if q.states == 'X' and not q.mailbox then
    add_set('dead')
    return numbers
  end
  for _, mailbox in ipairs(q.mailbox and {q.mailbox} or redis.call('HKEYS', P .. 'mailboxes')) do
    for state in (q.states == '' and 'RLDX' or q.states):gmatch('.') do
      for _, name in ipairs(STATES[state] or {}) do
        add_set(name .. mailbox)
      end
      for priority in (state == 'L' and priorities_of(mailbox) or ''):gmatch('.') do
        add_all(redis.call('ZRANGE', P .. 'x:' .. priority .. ':' .. mailbox, 0, -1))
      end
    end
  end
  return numbers
end

-- Returns the deliveries that match, by number, after `q.after` and at most `q.limit`.
local function matching(q)
  local numbers = q.ids or (q.message or q.correlation) and numbers_of_messages(q) or numbers_of_sets(q)
  table.sort(numbers)
  local found, last = {}, q.after
  for _, n in ipairs(numbers) do
    if #found >= q.limit then
      break
    end
    if n > last then
      local d = load(text(n))
      last = n
      if d and matches(d, q) then
        found[#found + 1] = d
      end
    end
  end
  return found
end
