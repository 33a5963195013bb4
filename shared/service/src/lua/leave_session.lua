-- Takes traces that are gone out of their session; the last one takes it along.
-- KEYS session, log   ARGV traces
for _, trace in ipairs(ARGV) do redis.call('HDEL', KEYS[1], 't:' .. trace) end
-- Its name, its first and its last notice.
if redis.call('HLEN', KEYS[1]) <= 3 then redis.call('DEL', KEYS[1], KEYS[2]) end
return 1
