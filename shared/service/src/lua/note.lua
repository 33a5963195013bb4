-- Notices of what was appended: always from where the last one ended, so a lost one is healed by the next and a doubled one does nothing.
-- KEYS log, noted, traces, due   ARGV cap, now_ms, due_ms, then trace and last seq of each   -> how many were written
local written = 0
for i = 4, #ARGV, 2 do
  local trace, last = ARGV[i], tonumber(ARGV[i + 1])
  local noted = tonumber(redis.call('HGET', KEYS[2], trace) or '0')
  if last > noted then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'trace', trace, 'first', string.format('%.0f', noted + 1), 'last', ARGV[i + 1])
    redis.call('HSET', KEYS[2], trace, ARGV[i + 1])
    written = written + 1
  end
  -- Armed before it was appended to, and its row taken in between by a sweep or a delete of its earlier life.
  if redis.call('ZADD', KEYS[3], 'NX', ARGV[2], trace) == 1 then redis.call('ZADD', KEYS[4], 'LT', ARGV[3], trace) end
end
return written
