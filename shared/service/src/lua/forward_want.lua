-- Says that a target wants a tenant's traces from now on: their notices are queued for it. The first time also what began just before.
-- KEYS wanted, todo, traces   ARGV target, now_ms, until_ms, since_ms, most   -> 1: for the first time
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if known > tonumber(ARGV[2]) then return 0 end
for _, trace in ipairs(redis.call('ZRANGE', KEYS[3], ARGV[4], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[5])) do redis.call('ZADD', KEYS[2], 'NX', ARGV[2], trace) end
return 1
