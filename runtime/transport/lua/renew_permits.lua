-- KEYS: whole, slots. ARGV: for how many milliseconds a permit holds, then permits.
local ends_at = string.format('%.0f', tonumber(now) + tonumber(ARGV[1]))
for index = 2, #ARGV do
  redis.call('ZADD', KEYS[2], ends_at, ARGV[index])
end
