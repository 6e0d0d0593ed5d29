-- Return the schema of the store; an empty one gets that of this version.

local key = P .. 'schema'
local found = redis.call('GET', key)
if not found then
  found = take()
  redis.call('SET', key, found)
end
return found
