-- KEYS: whole, out. ARGV: what queues' names begin with, the channel, the news; then for each delivery: entry id,
-- attempt, handler, definition.
local out = KEYS[2]
local queues, channel, news = unpack(ARGV, 1, 3)

write_whatever_memory_there_is()
local milliseconds, number = reserve_ids((#ARGV - 3) / 4)
local told = false
for first = 4, #ARGV, 4 do
  local entry_id, attempt, handler, definition = unpack(ARGV, first, first + 3)
  local known_as, taken_at, _, queue = find(out, attempt)
  if known_as == entry_id then
    leave_queue(queues, entry_id, taken_at, queue)
    enter_queue(out, queues, milliseconds .. '-' .. number, attempt, handler, definition)
    number = number + 1
    told = true
  end
end
if told then
  redis.call('PUBLISH', channel, news)
end
