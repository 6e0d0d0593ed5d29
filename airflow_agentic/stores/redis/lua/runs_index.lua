-- Read records without their data: version, type and name of each.

local stream, from, limit = take(), take(), take()
local found = {}
for i, entry in ipairs(redis.call('XRANGE', P .. 'log:' .. stream, from, '+', 'COUNT', limit)) do
  local fields = {}
  for j = 1, #entry[2], 2 do
    fields[entry[2][j]] = entry[2][j + 1]
  end
  found[i] = {entry[1], fields.t or '', fields.n or ''}
end
return found
