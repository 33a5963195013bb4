-- Removes a trace that nobody touched since `before`; one that was is left alone.
-- KEYS trace, events, seen, blobs, fold   ARGV before_ms, publish, bell   -> 1 removed, 0 still in use, 2 was not there
local state = redis.call('HMGET', KEYS[1], 'at', 'seq')
if not state[2] then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  return 2
end
if tonumber(state[1] or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('DEL', unpack(KEYS))
redis.pcall(ARGV[2], ARGV[3], state[2])
return 1
