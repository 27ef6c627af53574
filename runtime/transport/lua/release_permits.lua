-- KEYS: whole, slots. ARGV: the channel, the news, then permits.
write_whatever_memory_there_is()
local released = 0
for index = 3, #ARGV do
  released = released + redis.call('ZREM', KEYS[2], ARGV[index])
end
if released > 0 and redis.call('HDEL', KEYS[1], 'wanted') == 1 then
  redis.call('PUBLISH', ARGV[1], ARGV[2])
end
