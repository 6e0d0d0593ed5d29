-- Read the last sign of life of every source, and the time.

return {now, redis.call('HGETALL', P .. 'beats')}
