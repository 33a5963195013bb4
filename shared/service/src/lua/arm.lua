-- Gives a trace its index row and its deadline; both stay where they are when they are there (a deadline only ever moves nearer).
-- KEYS traces, due   ARGV trace, started_ms, due_ms
redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[2], 'LT', ARGV[3], ARGV[1])
return 1
