-- Dead letters: executions that FAILED and that nobody has dealt with. `resolution` says what became of one, `retry_of`
-- which one an execution carries on.
ALTER TABLE executions
    ADD COLUMN retry_of text COLLATE "C",
    ADD COLUMN resolution text COLLATE "C" CHECK (resolution IN ('requeued', 'discarded'));

-- Only what waits for somebody is in this index, however much has failed.
CREATE INDEX executions_dead_letters ON executions (execution_id) WHERE state = 'FAILED' AND resolution IS NULL;

-- A dead letter is carried on once.
CREATE UNIQUE INDEX executions_retries ON executions (retry_of) WHERE retry_of IS NOT NULL;
