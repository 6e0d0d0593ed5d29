-- Keep the last sign of life of a source: when, when the next one is due, whether that was reported, and the envelope.

local source, alive_for, envelope = take(), number(), take()
redis.call('HSET', P .. 'beats', source, now .. ' ' .. now + alive_for .. ' 0 ' .. envelope)
