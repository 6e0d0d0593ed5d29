-- Settle deliveries: all of them or none. Returns {'ok'}, or {'stale', delivery}.

local settlements = take_settlements()
local stale = find_stale(settlements)
if stale then
  return {'stale', stale}
end
settle(settlements)
return {'ok'}
