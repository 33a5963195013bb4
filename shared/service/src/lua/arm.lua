-- Gives a trace its index row and its deadline; both stay where they are when they are there (a deadline only ever moves nearer).
-- KEYS traces, due   ARGV trace, started_ms, due_ms
redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1])
local known = redis.call('ZSCORE', KEYS[2], ARGV[1])
-- Without its fraction a due time is nobody's claim: who claimed it saw the trace as it was, and may not take this one away.
local due = math.floor(math.min(tonumber(known or ARGV[3]), tonumber(ARGV[3])))
redis.call('ZADD', KEYS[2], string.format('%.0f', due), ARGV[1])
return 1
