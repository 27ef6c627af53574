-- KEYS: whole, inbox, outcomes. ARGV: entry ids.
write_whatever_memory_there_is()
call_with_many('XDEL', KEYS[2], ARGV)
call_with_many('HDEL', KEYS[3], ARGV)
