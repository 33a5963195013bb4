-- Removes sessions. -> how many there were
-- KEYS live, log, noted   ARGV of, cap, publish, then the sessions
local live = {all = KEYS[1], log = KEYS[2], noted = KEYS[3], of = ARGV[1], cap = ARGV[2]}
local removed = 0
for i = 4, #ARGV do
  if live_remove(live, ARGV[i]) then removed = removed + 1 end
end
if removed > 0 then redis.pcall(ARGV[3], live.log .. ':bell', '') end
return removed
