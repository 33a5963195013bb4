-- Takes traces that are due and pushes them ahead, so that nobody else looks at them meanwhile.
-- KEYS due   ARGV now_ms, until_ms, limit, latest_ms (later ones were set under a clock that was set back since)   -> traces
local traces = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[3])
if #traces == 0 then traces = redis.call('ZRANGE', KEYS[1], '(' .. ARGV[4], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[3]) end
for _, trace in ipairs(traces) do redis.call('ZADD', KEYS[1], 'XX', ARGV[2], trace) end
return traces
