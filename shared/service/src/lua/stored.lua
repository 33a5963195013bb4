-- Counts what is stored of a trace in what is stored of its tenant. Each trace's part is kept, so that counting again does nothing and what was wrong is right from then on.
-- KEYS stored   ARGV trace, bytes, '+' (as of an append, of which another may be later: never less than is known) or '='
-- -> bytes of the tenant
local known, bytes = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0'), tonumber(ARGV[2])
if ARGV[3] == '+' then bytes = math.max(known, bytes) end
if bytes == known then return redis.call('HINCRBY', KEYS[1], '*', 0) end
if bytes == 0 then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', bytes)) end
return redis.call('HINCRBY', KEYS[1], '*', string.format('%.0f', bytes - known))
