-- Holds a trace in the log for so long, while its archived copy is redacted; 0 seconds let it go.
-- KEYS trace   ARGV seconds   -> 1 held, 0 it is not there
if not redis.call('HGET', KEYS[1], 'seq') then return 0 end
if ARGV[1] == '0' then
  redis.call('HDEL', KEYS[1], 'redacting')
else
  redis.call('HSET', KEYS[1], 'redacting', string.format('%.0f', redis.call('TIME')[1] + ARGV[1]))
end
return 1
