-- What the scripts of deliveries share.
-- Keeps the newest entries of a list, and drops the deliveries that were the others. -> how many
local function hook_trim(list, most, of)
  local gone = redis.call('ZRANGE', list, 0, -1 - tonumber(most))
  for _, id in ipairs(gone) do
    redis.call('UNLINK', of .. id)
    redis.call('ZREM', list, id)
  end
  return #gone
end
