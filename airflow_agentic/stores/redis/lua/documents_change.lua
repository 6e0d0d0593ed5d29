-- Change documents, all or none. Returns the time; nothing, if one has another version.

local changes = {}
for i = 1, number() do
  local d = take_document()
  d.expected, d.kept, d.value = number(), take() == '1', take()
  if tonumber(find(d) or 0) ~= d.expected then
    return false
  end
  changes[i] = d
end

-- From here on everything is written.
for _, d in ipairs(changes) do
  if d.kept then
    local value = text(d.expected + 1) .. ' ' .. text(now) .. ' ' .. d.value
    -- What is a moment too old is not found, and this leaves no doubt about the moment.
    redis.call('SET', d.key, value, 'PX', text(d.keep + 1000))
    if d.expected == 0 then
      redis.call('ZADD', P .. 'guards:' .. d.kind, '0', d.name)
    end
  else
    redis.call('DEL', d.key)
    redis.call('ZREM', P .. 'guards:' .. d.kind, d.name)
  end
end
return text(now)
