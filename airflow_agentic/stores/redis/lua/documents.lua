-- Documents of guards. Each is a key of its own, which ends by itself when it is kept no longer; their names are in a set
-- for each kind, in order.

local function take_document()
  local d = {kind = take(), name = take(), keep = number()}
  d.key = P .. 'guard:' .. d.kind .. ':' .. d.name
  return d
end

-- Returns version, time of the last change and value as texts, or nothing.
local function find(d)
  local version, at, value = (redis.call('GET', d.key) or ''):match('^(%d+) (%d+) (.*)$')
  if version and now - tonumber(at) <= d.keep then
    return version, at, value
  end
end
