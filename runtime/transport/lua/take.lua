-- KEYS: whole, out, then a queue for each handler. ARGV: how many, who takes, then the handlers in the same order.
-- Returns how many entries could not be read, which are gone; then entry id, handler, attempt and definition of each
-- delivery.
local out = KEYS[2]
local count, replica = tonumber(ARGV[1]), ARGV[2]

write_whatever_memory_there_is()
local waiting = {}
for index = 3, #KEYS do
  for _, entry in ipairs(redis.call('XRANGE', KEYS[index], '-', '+', 'COUNT', count)) do
    local milliseconds, number = string.match(entry[1], '^(%d+)%-(%d+)$')
    waiting[#waiting + 1] = {tonumber(milliseconds), tonumber(number), index, entry[1], entry[2]}
  end
end
table.sort(waiting, function(a, b)
  if a[1] ~= b[1] then
    return a[1] < b[1]
  end
  return a[2] < b[2]
end)

local answer = {0}
for position = 1, math.min(count, #waiting) do
  local _, _, index, entry_id, fields = unpack(waiting[position])
  local version, attempt, definition = fields[2], fields[4], fields[6]
  redis.call('XDEL', KEYS[index], entry_id)
  if #fields == 6 and version == '1' and string.find(attempt, '^%d+ %d+ .') then
    redis.call('HSET', out, attempt, entry_id .. '\n' .. now .. '\n' .. replica .. '\n' .. ARGV[index])
    answer[#answer + 1] = entry_id
    answer[#answer + 1] = ARGV[index]
    answer[#answer + 1] = attempt
    answer[#answer + 1] = definition
  else
    answer[1] = answer[1] + 1
  end
end
return answer
