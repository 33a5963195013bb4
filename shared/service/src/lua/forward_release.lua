-- Gives the lease up, and says from when on the target may be asked again.
-- KEYS lease   ARGV holder, pause_until_ms ('0': at once), failures in a row   -> whether it was held
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'until', '0', 'pause', ARGV[2], 'failures', ARGV[3])
return 1
