-- Removes members of a consumer group that have nothing in hand: one by name, or all that were silent for so long. In one step, so that none of them takes
-- something in between: removing a member throws away what it has in hand.
-- KEYS stream   ARGV group, member ('' for all), silent_ms   -> number removed
local removed = 0
local members = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
-- No such stream or group: nobody is in it.
if members.err then return 0 end
for _, fields in ipairs(members) do
  local member = {}
  for at = 1, #fields, 2 do member[fields[at]] = fields[at + 1] end
  local meant = ARGV[2] == member.name or (ARGV[2] == '' and member.idle > tonumber(ARGV[3]))
  if meant and member.pending == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], member.name)
    removed = removed + 1
  end
end
return removed
