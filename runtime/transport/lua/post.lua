-- KEYS: whole, out, inbox, outcomes. ARGV: what queues' names begin with, the channel, the news, the longest inbox that
-- takes wake-ups, wake-ups or nothing; then for each outcome: attempt, entry id or nothing, header, output.
local _, out, inbox, outcomes = unpack(KEYS)
local queues, channel, news, longest, wake_ups = unpack(ARGV, 1, 5)

local told = false
if #ARGV > 5 then
  write_whatever_memory_there_is()
end
if wake_ups ~= '' and redis.call('XLEN', inbox) < tonumber(longest) then
  redis.call('XADD', inbox, '*', 'v', '1', 'w', wake_ups)
  told = true
end
for first = 6, #ARGV, 4 do
  local attempt, entry_id, header, output = unpack(ARGV, first, first + 3)
  local id = redis.call('XADD', inbox, '*', 'v', '1', 'h', header, 'o', output)
  redis.call('HSET', outcomes, id, attempt)
  if entry_id ~= '' then
    local known_as, taken_at, _, handler = find(out, attempt)
    if known_as == entry_id then
      leave_queue(queues, entry_id, taken_at, handler)
      redis.call('HDEL', out, attempt)
    end
  end
  told = true
end
if told then
  redis.call('PUBLISH', channel, news)
end
