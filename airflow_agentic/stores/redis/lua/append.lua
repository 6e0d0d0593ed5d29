-- Send messages: all of them or none. Returns {'ok', flags}, or {'full', mailbox, limit}.

local call, is_again = take(), take() == '1'
local messages = take_messages()
local full, limit = find_no_room(messages, {})
if full then
  return {'full', full, limit}
end
return {'ok', add_all(messages, call, is_again)}
