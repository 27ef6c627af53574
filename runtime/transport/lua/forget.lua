-- KEYS: whole, out. ARGV: what queues' names begin with, then attempts.
local out, queues = KEYS[2], ARGV[1]

write_whatever_memory_there_is()
for index = 2, #ARGV do
  local entry_id, taken_at, _, handler = find(out, ARGV[index])
  if entry_id then
    leave_queue(queues, entry_id, taken_at, handler)
  end
  redis.call('HDEL', out, ARGV[index])
end
