-- Which of the scripts' commands this user may not run: each is tried on a key that is not there, and leaves none.
-- KEYS probe   ARGV publish, bell   -> the names of the refused ones
local refused = {}
local function try(...)
  local answer = redis.pcall(...)
  local said = type(answer) == 'table' and answer.err or ''
  -- In the words of 6.2 and 7.0, of 7.2, and of Valkey.
  if said:find('user executing the script') or said:find('ACL failure') or said:find('NOPERM') then refused[#refused + 1] = (select(1, ...)) end
end
local key = KEYS[1]
try('SADD', key, 'm') try('SMISMEMBER', key, 'm') try('UNLINK', key) try('DEL', key)
try('SET', key, 'v', 'EX', 1) try('GET', key) try('DEL', key)
try('HSETNX', key, 'f', '1') try('HSET', key, 'f', '1') try('HINCRBY', key, 'f', 1) try('HGET', key, 'f') try('HMGET', key, 'f') try('HLEN', key) try('HEXISTS', key, 'f') try('HGETALL', key) try('HRANDFIELD', key, 1)
try('EXPIRE', key, 1) try('TTL', key) try('HDEL', key, 'f')
try('ZADD', key, 1, 'm') try('ZSCORE', key, 'm') try('ZRANGE', key, 0, 0) try('ZMSCORE', key, 'm') try('ZCOUNT', key, '-inf', '+inf') try('ZREM', key, 'm')
try('XADD', key, 'NOMKSTREAM', '*', 'f', 'v') try('XRANGE', key, '-', '+', 'COUNT', 1) try('XREVRANGE', key, '+', '-', 'COUNT', 1) try('EXISTS', key)
redis.pcall('DEL', key)
try('RENAME', key, key)
try('TIME')
try(ARGV[1], ARGV[2], '0')
return refused
