-- Sets fields of a hash that is there; one that was removed meanwhile does not come back.
-- KEYS hash   ARGV field, value, ...   -> whether it was there
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
