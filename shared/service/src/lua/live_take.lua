-- Gives out places for spans and log records that came for a session.
-- KEYS session, noted   ARGV session, spans, logs, most spans, most logs, into (its trace, when it has none for frames yet)
-- -> nothing: there is no such session | name, into, started, spans granted, logs granted, spans and logs it has now
local is = redis.call('HMGET', KEYS[1], 'name', 'into', 'started', 'spans', 'logs')
if not is[1] then return {} end
local into = is[2]
if not into then
  -- A session of exported traces gets frames, too.
  into = ARGV[6]
  redis.call('HSET', KEYS[1], 'into', into, 't:' .. into, 'e ' .. redis.call('HINCRBY', KEYS[1], 'place', 1))
  redis.call('HINCRBY', KEYS[1], 'n', 1)
  redis.call('HSET', KEYS[2], into, '0 @9w' .. ARGV[1])
end
local function take(field, has, wanted, most)
  local granted = math.max(0, math.min(wanted, most - has))
  if granted > 0 then redis.call('HINCRBY', KEYS[1], field, granted) end
  return granted
end
local spans, logs = tonumber(is[4] or '0'), tonumber(is[5] or '0')
local of_spans = take('spans', spans, tonumber(ARGV[2]), tonumber(ARGV[4]))
local of_logs = take('logs', logs, tonumber(ARGV[3]), tonumber(ARGV[5]))
return {is[1], into, is[3], of_spans, of_logs, spans + of_spans, logs + of_logs}
