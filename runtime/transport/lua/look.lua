-- KEYS: whole, out, outcomes, inbox. ARGV: what queues' names begin with. Returns the time, since when all is whole,
-- attempts with what is known of them, and entries of the inbox with the attempts that their outcomes are of.
local _, out, outcomes, inbox = unpack(KEYS)
local queues = ARGV[1]

-- Whether a stream has an entry of this id. A name that is no id, or no stream's, was written by nobody of ours.
local function has(stream, entry_id)
  local found = redis.pcall('XRANGE', stream, entry_id, entry_id)
  return not found.err and #found > 0
end

write_whatever_memory_there_is()
-- What is said to wait in a queue or in the inbox, and is not there, was lost by itself: trimmed, or deleted.
local known = {}
local all = redis.call('HGETALL', out)
for first = 1, #all, 2 do
  local entry_id, taken_at, _, handler = read(all[first + 1])
  if entry_id and taken_at == '' and not has(queues .. handler, entry_id) then
    redis.call('HDEL', out, all[first])
  else
    known[#known + 1] = all[first]
    known[#known + 1] = all[first + 1]
  end
end
local handed_in = {}
all = redis.call('HGETALL', outcomes)
for first = 1, #all, 2 do
  if string.find(all[first], '^%d+%-%d+$') and not has(inbox, all[first]) then
    redis.call('HDEL', outcomes, all[first])
  else
    handed_in[#handed_in + 1] = all[first]
    handed_in[#handed_in + 1] = all[first + 1]
  end
end
return {now, since, known, handed_in}
