-- KEYS: whole, out. ARGV: what queues' names begin with, the channel, the news; then for each delivery: attempt,
-- handler, definition.
local out = KEYS[2]
local queues, channel, news = unpack(ARGV, 1, 3)

-- Where memory is short this is refused, before anything has changed: what is queued would only take more of it.
local milliseconds, number = reserve_ids((#ARGV - 3) / 3)
for first = 4, #ARGV, 3 do
  local attempt, handler, definition = unpack(ARGV, first, first + 2)
  local known_as, taken_at, _, queue = find(out, attempt)
  if known_as then
    leave_queue(queues, known_as, taken_at, queue)
  end
  enter_queue(out, queues, milliseconds .. '-' .. number, attempt, handler, definition)
  number = number + 1
end
redis.call('PUBLISH', channel, news)
