-- Settle deliveries, send messages, change values and claim what comes then: all of it or nothing.
-- Returns {'ok', claims}, {'stale', delivery}, {'conflict', change, version} or {'full', mailbox, limit}.

local settlements, changes, messages = take_settlements(), take_changes(), take_messages()
local wanted = number() == 1 and take_wanted()

local stale, ended = find_stale(settlements)
if stale then
  return {'stale', stale}
end
local conflict, version = find_conflict(changes)
if conflict then
  return {'conflict', conflict, version}
end
local full, limit = find_no_room(messages, ended)
if full then
  return {'full', full, limit}
end

-- From here on everything is written.
settle(settlements)
add_all(messages, '', false)
for _, change in ipairs(changes) do
  apply(change)
end
local claims = {}
if wanted then
  claim(wanted, claims)
end
return {'ok', claims}
