-- Takes traces that are gone out of their session; the last one takes it along.
-- KEYS session, log   ARGV traces
for _, trace in ipairs(ARGV) do redis.call('HDEL', KEYS[1], 't:' .. trace, 'e:' .. trace) end
-- Its name, its first and its last notice, and perhaps how many notices had no place in it.
if redis.call('HLEN', KEYS[1]) <= 3 + redis.call('HEXISTS', KEYS[1], 'left_out') then redis.call('DEL', KEYS[1], KEYS[2]) end
return 1
