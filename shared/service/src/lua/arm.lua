-- Gives a trace its index row and its deadline; both stay where they are when they are there (a deadline only ever moves nearer).
-- KEYS traces, due   ARGV trace, within_ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], 'NX', string.format('%.0f', now), ARGV[1])
local known, wanted = redis.call('ZSCORE', KEYS[2], ARGV[1]), now + tonumber(ARGV[2])
-- Without its fraction a due time is nobody's claim: who claimed it saw the trace as it was, and may not take this one away.
local due = math.floor(math.min(tonumber(known or wanted), wanted))
redis.call('ZADD', KEYS[2], string.format('%.0f', due), ARGV[1])
return 1
