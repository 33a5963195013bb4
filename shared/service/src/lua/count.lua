-- How many traces stand in each index within a time.
-- KEYS indexes   ARGV least start, greatest start   -> a count for each
local counts = {}
for i, key in ipairs(KEYS) do counts[i] = redis.call('ZCOUNT', key, ARGV[1], ARGV[2]) end
return counts
