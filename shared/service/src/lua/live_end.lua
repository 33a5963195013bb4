-- Ends a session because its producer said so: none of its traces is open any more.
-- KEYS live, log, noted   ARGV of, cap, now_us, publish, session   -> 0: there is no such session
local live = {all = KEYS[1], log = KEYS[2], noted = KEYS[3], of = ARGV[1], cap = ARGV[2], now = ARGV[3]}
local key = live.of .. ARGV[5]
local fields = redis.call('HGETALL', key)
if #fields == 0 then return 0 end
local into, trace
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'into' then
    into = value
  elseif string.sub(name, 1, 2) == 't:' then
    trace = string.sub(name, 3)
    if string.sub(value, 1, 1) == 'o' then redis.call('HSET', key, name, 'e' .. string.sub(value, 2)) end
  end
end
redis.call('HSET', key, 'open', '0')
live_complete(live, ARGV[5], into or trace)
redis.pcall(ARGV[4], live.log .. ':bell', '')
return 1
