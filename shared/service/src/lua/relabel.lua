-- What a trace is found by and shown as, after something was taken out of it: labels that it has no more go, and its row is another. Numbers and status stay.
-- KEYS noted, rows, live session ('' where it is in none), log   ARGV trace, by (what a label's key begins with), row ('' none), what the live session is called now, its eval set and metadata, then the labels that stay
-- -> session labels that went
local gone, stays = {}, {}
for i = 7, #ARGV do stays[ARGV[i]] = true end
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value then
  local kept = string.gsub(value, ' (%a+:%S+)', function(label)
    if stays[label] or string.sub(label, 1, 7) == 'status:' then return nil end
    redis.call('ZREM', ARGV[2] .. label, ARGV[1])
    if string.sub(label, 1, 8) == 'session:' then gone[#gone + 1] = string.sub(label, 9) end
    return ''
  end)
  if kept ~= value then redis.call('HSET', KEYS[1], ARGV[1], kept) end
end
local row = redis.call('HGET', KEYS[2], ARGV[1])
local head = row and string.match(row, '^(%d+ %S+ )')
if head then
  if ARGV[3] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], head .. ARGV[3]) else redis.call('HDEL', KEYS[2], ARGV[1]) end
end
local was = redis.call('HGET', KEYS[3], 'name')
if was then
  redis.call('HSET', KEYS[3], 'name', ARGV[4])
  if redis.call('HEXISTS', KEYS[3], 'eval_set') == 1 then redis.call('HSET', KEYS[3], 'eval_set', ARGV[5]) end
  if redis.call('HEXISTS', KEYS[3], 'meta') == 1 then redis.call('HSET', KEYS[3], 'meta', ARGV[6]) end
  if was ~= ARGV[4] then
    -- What was told of it under its former name.
    for _, entry in ipairs(redis.call('XRANGE', KEYS[4], '-', '+')) do
      for at = 1, #entry[2], 2 do
        local field = entry[2][at]
        if (field == 'name' or field == 'by') and entry[2][at + 1] == was then redis.call('XDEL', KEYS[4], entry[1]) end
      end
    end
  end
end
return gone
