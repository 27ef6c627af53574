-- What each replica, whatever its roles are, last said of itself. One that is no orchestrator has no lease.
ALTER TABLE replicas
    ALTER COLUMN expires_at SET DEFAULT '-infinity',
    ADD COLUMN described text,
    ADD COLUMN described_at timestamptz;
