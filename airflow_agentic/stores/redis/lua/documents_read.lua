-- Read documents. Returns the time, and of each what is known.

local found = {}
for i = 1, number() do
  found[i] = {find(take_document())}
end
return {text(now), found}
