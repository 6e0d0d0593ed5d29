-- Add records to a journal, with its head, a snapshot and messages: all of it or nothing.
-- Returns {'ok'}, {'elsewhere'} or {'full', mailbox, limit}.

local stream, expected, owner = take(), take(), take()
local agent, correlation, created_at, status, updated_at = take(), take(), take(), take(), take()
local fields = {}
for i = 1, number() do
  fields[i] = take()
end
local records = {}
for i = 1, number() do
  records[i] = {id = take() .. '-0', type = take(), at = take(), name = take(), digest = take(), data = take()}
end
local snapshot = take() == '1' and {version = take(), kept = take() == '1', value = take()}
local messages = take_messages()

local head, log = P .. 'run:' .. stream, P .. 'log:' .. stream
local known = redis.call('HMGET', head, 'version', 'owner', 'status', 'agent', 'transient')
if (known[1] or '0') ~= expected or known[1] and known[2] ~= owner then
  return {'elsewhere'}
end
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', '1')[1]
if last and tonumber(last[1]:match('^%d+')) >= tonumber(records[1].id:match('^%d+')) then
  return redis.error_reply('ERR the journal ' .. stream .. ' has records behind its head: it was changed by hand')
end
local full, limit = find_no_room(messages, {})
if full then
  return {'full', full, limit}
end

-- From here on everything is written.
if not known[1] then
  redis.call('HSET', head, 'agent', agent, 'correlation', correlation, 'owner', owner, 'created_at_ms', created_at)
  redis.call('ZADD', P .. 'streams', '0', stream)
  redis.call('ZADD', P .. 'of:' .. correlation, '0', stream)
elseif known[3] ~= status then
  unlist_run(stream, known[3], known[4])
end
list_run(stream, status, known[4] or agent, updated_at)
redis.call('HSET', head, 'status', status, 'updated_at_ms', updated_at, unpack(fields))
for _, r in ipairs(records) do
  redis.call('XADD', log, r.id, 't', r.type, 'a', r.at, 'n', r.name, 'd', r.digest, 'x', r.data)
end
if snapshot then
  if known[5] then
    drop_snapshot(stream, known[5])
    redis.call('HDEL', head, 'transient')
  end
  redis.call('ZADD', P .. 'snaps:' .. stream, snapshot.version, snapshot.version)
  redis.call('HSET', P .. 'snap:' .. stream, snapshot.version, snapshot.value)
  if not snapshot.kept then
    redis.call('HSET', head, 'transient', snapshot.version)
  end
end
add_all(messages, '', false)
return {'ok'}
