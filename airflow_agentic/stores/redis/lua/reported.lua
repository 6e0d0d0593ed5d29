-- Note that a heartbeat was reported as late, unless another one has come since.

local source, due_at = take(), take()
local at, due, envelope = (redis.call('HGET', P .. 'beats', source) or ''):match('^(%d+) (%d+) %d (.*)$')
if due == due_at then
  redis.call('HSET', P .. 'beats', source, at .. ' ' .. due .. ' 1 ' .. envelope)
end
