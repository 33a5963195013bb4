-- Removes a trace that nobody touched since `before`, if it stands as wanted; one that was touched is left alone. The data goes in the background of Redis, however large it is.
-- KEYS trace, events, seen, blobs, fold
-- ARGV before_ms, publish, bell, wanted ('' however it stands, 'ended', or the status it ended with), lost_before_ms (what is open and was silent since counts as lost), 1 to only look, seq, mark and life of what was archived ('' each: nothing had to be)
-- -> 1 removed, or would be; 0 not; 2 it is not there, but for its rows
local state = redis.call('HMGET', KEYS[1], 'at', 'seq', 'dead', 'settled', 'settled_seq', 'mark', 'restored', 'life', 'redacting')
local look = ARGV[6] == '1'
if not state[2] then
  if look then return 0 end
  redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  return 2
end
-- What was brought back from the archive is kept as long as if it had just come.
local at = math.max(tonumber(state[1] or '0'), tonumber(state[7] or '0'))
if at >= tonumber(ARGV[1]) then return 0 end
if ARGV[4] ~= '' then
  -- Deleted, and its rows were not dropped yet; the name stays taken.
  if state[3] then return look and 0 or 2 end
  local status = state[4] and state[5] == state[2] and state[4] or at < tonumber(ARGV[5]) and 'lost' or nil
  if not status or ARGV[4] ~= 'ended' and ARGV[4] ~= status then return 0 end
end
if look then return 1 end
-- Its archived copy is being redacted, and may be written over what was archived just now.
if tonumber(state[9] or '0') > tonumber(redis.call('TIME')[1]) then return 0 end
-- What was said about it since (an aside, which is no sign of life) is not in the archive yet; what was taken out of it since still is.
if ARGV[7] ~= '' and (state[2] ~= ARGV[7] or (state[6] or '') ~= ARGV[8] or (state[8] or '') ~= ARGV[9]) then return 0 end
redis.call('UNLINK', unpack(KEYS))
redis.pcall(ARGV[2], ARGV[3], state[2])
return 1
