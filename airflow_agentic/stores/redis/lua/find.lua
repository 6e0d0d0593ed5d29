-- Read deliveries: what is known of each, its envelope and its history.

local found = {}
for i, d in ipairs(matching(take_query())) do
  local envelope = redis.call('GET', P .. 'e:' .. (d.ho or d.n)) or ''
  local history = redis.call('LRANGE', P .. 'h:' .. d.n, 0, -1)
  found[i] = {d.n, d.mb, d.st, d.at, d.mx, d.vi, d.up, d.re or false, d.ow or false, d.wa and 1 or 0, d.rd or 0, envelope,
    history}
end
return found
