-- Durable runs. A run is found by its status, and by status and agent, in the order of its last record.

local function listed(status, agent)
  return {P .. 'runs:' .. status, P .. 'runs:' .. status .. ':' .. agent}
end

local function list_run(stream, status, agent, at)
  for _, key in ipairs(listed(status, agent)) do
    redis.call('ZADD', key, '-' .. at, stream)
  end
end

local function unlist_run(stream, status, agent)
  for _, key in ipairs(listed(status, agent)) do
    redis.call('ZREM', key, stream)
  end
end

local function drop_snapshot(stream, version)
  redis.call('ZREM', P .. 'snaps:' .. stream, version)
  redis.call('HDEL', P .. 'snap:' .. stream, version)
end
