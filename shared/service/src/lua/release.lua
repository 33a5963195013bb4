-- Ends a claim: a new due time, or none. A trace that was armed again since keeps the time it was given.
-- KEYS due   ARGV trace, claimed_until_ms, next_ms or ''
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then redis.call('ZREM', KEYS[1], ARGV[1]) else redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
return 1
