-- Takes traces out of every index; `noted` says in which they stand.
-- KEYS traces, due, rows, noted, sessions   ARGV by (what a label's key begins with), then the traces
-- -> trace and session of each that stood in a session; a session without traces is no session any more
local left = {}
for i = 2, #ARGV do
  local trace = ARGV[i]
  for label in string.gmatch(redis.call('HGET', KEYS[4], trace) or '', ' (%S+)') do
    redis.call('ZREM', ARGV[1] .. label, trace)
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
end
return left
