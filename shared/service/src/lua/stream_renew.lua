-- Renews places of streams that are open. One that ended meanwhile, because its process slept, is there again: it is open.
-- KEYS streams   ARGV lease_ms, ids ...
local time = redis.call('TIME')
local until_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1]))
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], until_ms, ARGV[i]) end
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[1]) / 1000) + 60)
return 1
