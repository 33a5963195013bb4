-- Takes or keeps the lease on forwarding to a target: one process at a time, and nobody while it pauses.
-- KEYS lease   ARGV holder, now_ms, until_ms   -> {'go', failures in a row} | {'busy'} | {'pause'}
local lease = redis.call('HMGET', KEYS[1], 'holder', 'until', 'pause', 'failures')
local now, wanted = tonumber(ARGV[2]), tonumber(ARGV[3])
-- What ends long after ours would was written under a clock that was set back since.
local held, pause = tonumber(lease[2] or '0'), tonumber(lease[3] or '0')
if lease[1] and lease[1] ~= ARGV[1] and held > now and held <= wanted + 120000 then return {'busy'} end
if pause > now and pause <= now + 7200000 then return {'pause'} end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', ARGV[3])
redis.call('EXPIRE', KEYS[1], 604800)
return {'go', lease[4] or '0'}
