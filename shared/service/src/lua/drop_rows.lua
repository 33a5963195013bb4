-- KEYS traces, due, rows, noted   ARGV traces
for _, trace in ipairs(ARGV) do
  redis.call('ZREM', KEYS[1], trace)
  redis.call('ZREM', KEYS[2], trace)
  redis.call('HDEL', KEYS[3], trace)
  redis.call('HDEL', KEYS[4], trace)
end
return #ARGV
