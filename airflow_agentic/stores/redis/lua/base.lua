-- How every script begins. KEYS[1] is what all keys begin with; ARGV[1] is the time in milliseconds, or nothing for that
-- of the server.
-- Numbers of deliveries are texts wherever they are not compared: to write a number costs more than to look up a key.
local P, NOW, format = KEYS[1], ARGV[1], string.format
if NOW == '' then
  local time = redis.call('TIME')
  NOW = time[1] .. format('%03d', math.floor(time[2] / 1000))
end
local now = tonumber(NOW)

local position = 1

local function take()
  position = position + 1
  return ARGV[position]
end

local function number()
  position = position + 1
  return tonumber(ARGV[position])
end

-- A whole number as text.
local function text(value)
  return format('%d', value)
end

-- Members with the same score are ordered as text.
local function padded(n)
  return format('%015d', n)
end
