-- Forget subscriptions of a mailbox. Returns how many there were.

local mailbox = take()
local has_topic, topic = take() == '1', take()
local has_filter, filter = take() == '1', take()
local count = 0
for _, field in ipairs(redis.call('HKEYS', P .. 'subscriptions')) do
  local key = cjson.decode(field)
  if key[1] == mailbox and (not has_topic or key[2] == topic) and (not has_filter or key[3] == filter) then
    redis.call('HDEL', P .. 'subscriptions', field)
    count = count + 1
  end
end
return count
