-- Removes complete sessions that began before a time, those without a single event that began before another, and of what is beyond the limit the oldest complete ones.
-- KEYS live, log, noted   ARGV of, cap, publish, most sessions, before_us, empty_before_us, offset, step
-- -> how many were removed, how many were looked at
local live = {all = KEYS[1], log = KEYS[2], noted = KEYS[3], of = ARGV[1], cap = ARGV[2]}
local over = redis.call('ZCOUNT', live.all, '-inf', '+inf') - tonumber(ARGV[4])
local sessions = redis.call('ZRANGE', live.all, ARGV[7], tonumber(ARGV[7]) + tonumber(ARGV[8]) - 1)
local removed = 0
for _, session in ipairs(sessions) do
  local is = redis.call('HMGET', live.of .. session, 'complete', 'started', 'source', 'spans', 'logs')
  local started = tonumber(is[2] or '0')
  local empty = is[3] == 'websocket' and not is[4] and not is[5]
  if is[1] ~= '0' and (over > 0 or started < tonumber(ARGV[5])) or empty and started < tonumber(ARGV[6]) then
    live_remove(live, session)
    over = over - 1
    removed = removed + 1
  end
end
if live.told then redis.pcall(ARGV[3], live.log .. ':bell', '') end
return {removed, #sessions}
