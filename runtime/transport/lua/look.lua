-- KEYS: whole, out, outcomes. Returns the time, since when all is whole, attempts with what is known of them, and
-- entries of the inbox with the attempts that their outcomes are of.
write_whatever_memory_there_is()
return {now, since, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3])}
