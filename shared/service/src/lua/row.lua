-- What a list shows of an ended run; a later end of the same trace wins, the same end twice does nothing.
-- KEYS rows, traces   ARGV trace, through, row   -> 1 written, 0 known or the trace is gone
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 0 end
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and tonumber(string.match(known, '^(%d+) ')) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
return 1
