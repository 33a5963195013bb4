-- Takes traces out of every index; `noted` says in which they stand.
-- KEYS traces, due, rows, noted, sessions, live, log, stored   ARGV by (what a label's key begins with), live_of, cap, now_us, publish, then the traces
-- -> trace and session of each that stood in a session; a session without traces is no session any more
local live = {all = KEYS[6], log = KEYS[7], noted = KEYS[4], of = ARGV[2], cap = ARGV[3], now = ARGV[4]}
local left = {}
for i = 6, #ARGV do
  local trace = ARGV[i]
  for label in string.gmatch(redis.call('HGET', KEYS[4], trace) or '', ' (%S+)') do
    local in_live = string.match(label, '^@%d%a(%w+)$')
    if in_live then live_leave(live, in_live, trace) else redis.call('ZREM', ARGV[1] .. label, trace) end
    local session = string.match(label, '^session:(.+)$')
    if session then
      left[#left + 1] = trace
      left[#left + 1] = session
      if redis.call('EXISTS', ARGV[1] .. label) == 0 then redis.call('ZREM', KEYS[5], session) end
    end
  end
  redis.call('ZREM', KEYS[1], trace)
  redis.call('ZREM', KEYS[2], trace)
  redis.call('HDEL', KEYS[3], trace)
  redis.call('HDEL', KEYS[4], trace)
  local bytes = redis.call('HGET', KEYS[8], trace)
  if bytes then
    redis.call('HDEL', KEYS[8], trace)
    redis.call('HINCRBY', KEYS[8], '*', -tonumber(bytes))
  end
end
if live.told then redis.pcall(ARGV[5], KEYS[7] .. ':bell', '') end
return left
