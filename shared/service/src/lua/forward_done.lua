-- Takes traces from a target's queue that were forwarded as far as they were noted; the others go to its end.
-- KEYS todo, noted   ARGV now_ms, then of each: trace, last event that was forwarded ('-': it is gone)   -> how many are left
local left = 0
for at = 2, #ARGV, 2 do
  local noted = tonumber(string.match(redis.call('HGET', KEYS[2], ARGV[at]) or '', '^%d+') or '0')
  if ARGV[at + 1] ~= '-' and noted > tonumber(ARGV[at + 1]) then
    redis.call('ZADD', KEYS[1], ARGV[1], ARGV[at])
    left = left + 1
  else
    redis.call('ZREM', KEYS[1], ARGV[at])
  end
end
return left
