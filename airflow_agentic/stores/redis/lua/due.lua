-- When a mailbox may have something to claim: {milliseconds from now, or -1 for never}, and the ids of its ten streams
-- after which that is news.

local mailbox = take()
local soonest
local function consider(key)
  local at = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
  if at and (not soonest or at < soonest) then
    soonest = at
  end
end
consider(P .. 'g0:' .. mailbox)
consider(P .. 'g1:' .. mailbox)
for priority in (redis.call('HGET', P .. 'mailboxes', mailbox) or ''):gmatch('.') do
  consider(P .. 'x:' .. priority .. ':' .. mailbox)
end
if redis.call('ZCARD', P .. 'c:' .. mailbox) > 0 then
  soonest = now
end
local ids = {}
for priority = 0, 9 do
  local last = redis.call('XREVRANGE', P .. 'q:' .. priority .. ':' .. mailbox, '+', '-', 'COUNT', 1)[1]
  ids[priority + 1] = last and last[1] or '0'
end
return {soonest and math.max(0, soonest - now) or -1, ids}
