-- As note.lua, for one session; what was noted of each of its traces lies in the session itself.
-- KEYS session, log   ARGV cap, ttl_seconds, now_ms, name, most_traces, then trace and last seq of each
redis.call('HSETNX', KEYS[1], 'name', ARGV[4])
redis.call('HSETNX', KEYS[1], 'from', ARGV[3])
redis.call('HSET', KEYS[1], 'at', ARGV[3])
local written = 0
for i = 6, #ARGV, 2 do
  local field, last = 't:' .. ARGV[i], tonumber(ARGV[i + 1])
  local known = redis.call('HGET', KEYS[1], field)
  local noted = tonumber(known or '0')
  if last > noted then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'trace', ARGV[i], 'first', string.format('%.0f', noted + 1), 'last', ARGV[i + 1])
    if known or redis.call('HLEN', KEYS[1]) < tonumber(ARGV[5]) + 3 then redis.call('HSET', KEYS[1], field, ARGV[i + 1]) end
    written = written + 1
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('EXPIRE', KEYS[2], ARGV[2]) end
return written
