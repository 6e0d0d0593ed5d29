-- Prove that the store can be read and written: every command that the scripts use is tried, so that none is refused in
-- the middle of one. It leaves no trace.

local key = P .. 'probe'
local commands = {
  {'SET', key, NOW}, {'GET', key}, {'EXISTS', key}, {'DEL', key},
  {'INCR', key}, {'INCRBY', key, '1'}, {'DEL', key},
  {'HSET', key, 'a', '1'}, {'HGET', key, 'a'}, {'HMGET', key, 'a'}, {'HEXISTS', key, 'a'}, {'HINCRBY', key, 'a', '1'}, {'HKEYS', key},
  {'HVALS', key}, {'HGETALL', key}, {'HDEL', key, 'a'},
  {'RPUSH', key, 'a'}, {'LRANGE', key, '0', '0'}, {'DEL', key},
  {'SADD', key, 'a'}, {'SMEMBERS', key}, {'DEL', key},
  {'ZADD', key, '1', 'a'}, {'ZCARD', key}, {'ZCOUNT', key, '-inf', '+inf'}, {'ZRANGE', key, '0', '0'},
  {'ZRANGEBYSCORE', key, '-inf', '+inf'}, {'ZRANGEBYLEX', key, '-', '+'}, {'ZREM', key, 'a'},
  {'XADD', key, '1-1', 'd', '1'}, {'XRANGE', key, '-', '+'}, {'XREVRANGE', key, '+', '-'}, {'XLEN', key},
  {'XREAD', 'COUNT', '1', 'STREAMS', key, '0'},
  {'XTRIM', key, 'MINID', '=', '1'}, {'XDEL', key, '1-1'}, {'DEL', key},
}
for _, command in ipairs(commands) do
  redis.call(unpack(command))
end
return redis.call('GET', P .. 'schema')
