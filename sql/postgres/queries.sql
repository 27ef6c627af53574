-- Named queries for PostgreSQL. Batches are arrays, one for each column: one statement and one round trip, whatever
-- their size, and one text to prepare.

-- name: create_migrations_table
-- The list of applied migrations.
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    digest     text NOT NULL,
    applied_at bigint NOT NULL
);

-- name: list_migrations
-- What has been applied.
SELECT number, name, digest FROM schema_migrations ORDER BY number;

-- name: insert_migration
-- Note an applied migration.
INSERT INTO schema_migrations (number, name, digest, applied_at) VALUES ($1, $2, $3, $4);

-- name: lock_migrations
-- One process migrates at a time; the others wait, and find that it is done.
SELECT pg_advisory_xact_lock(hashtextextended('workflow_engine.migrations', 0));

-- name: try_lock_database
-- One process owns the database; the lock lives as long as this connection.
SELECT pg_try_advisory_lock(hashtextextended('workflow_engine.owner/' || current_schema(), 0));

-- name: find_lock_holder
-- Who has the database locked.
SELECT application_name, host(client_addr), pid FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND (classid::bigint << 32) | objid::bigint = hashtextextended('workflow_engine.owner/' || current_schema(), 0);

-- name: lock_name
-- Versions of one name are numbered one after another.
SELECT pg_advisory_xact_lock(hashtextextended('workflow_engine.definition/' || $1, 0));

-- name: find_digest
-- The definition of that name and digest.
SELECT definition_id, name, version, digest, created_at FROM definitions WHERE name = $1 AND digest = $2;

-- name: insert_definition
-- A definition as the next version of its name.
INSERT INTO definitions (definition_id, name, version, digest, body, created_at)
SELECT $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5 FROM definitions WHERE name = $2
RETURNING definition_id, name, version, digest, created_at;

-- name: find_version
-- One version of a name.
SELECT definition_id, name, version, digest, created_at FROM definitions WHERE name = $1 AND version = $2;

-- name: find_latest
-- The latest version of a name.
SELECT definition_id, name, version, digest, created_at FROM definitions WHERE name = $1
ORDER BY version DESC LIMIT 1;

-- name: list_definitions
-- The latest version of each name behind $1, found one after another in the index of (name, version).
WITH RECURSIVE latest AS (
    (SELECT * FROM definitions WHERE name > $1 ORDER BY name, version DESC LIMIT 1)
    UNION ALL
    SELECT next.* FROM latest, LATERAL (
        SELECT * FROM definitions WHERE definitions.name > latest.name ORDER BY name, version DESC LIMIT 1
    ) AS next
)
SELECT definition_id, name, version, digest, created_at FROM latest LIMIT $2;

-- name: list_versions
-- The versions of a name below $2, newest first.
SELECT definition_id, name, version, digest, created_at FROM definitions
WHERE name = $1 AND version < $2 ORDER BY version DESC LIMIT $3;

-- name: read_definition
-- One definition.
SELECT definition_id, name, version, digest, body, created_at FROM definitions WHERE definition_id = $1;

-- name: create_executions
-- New executions, PENDING or RUNNING, each with its claim if it has one. Returns those that were created: a claim
-- that was made before keeps its execution from being created.
WITH wanted AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::integer[], $4::bytea[], $5::bigint[], $6::text[], $7::text[], $8::bigint[]
    ) AS row (execution_id, definition_id, partition, input_text, created_at, claim_key, fingerprint, claimed_at)
), claimed AS (
    INSERT INTO idempotency_claims (claim_key, fingerprint, execution_id, definition_id, created_at)
    SELECT claim_key, fingerprint, execution_id, definition_id, claimed_at FROM wanted
    WHERE claim_key IS NOT NULL ORDER BY claim_key
    ON CONFLICT (claim_key) DO NOTHING
    RETURNING execution_id
)
INSERT INTO executions (execution_id, definition_id, name, partition, state, input_text, created_at, started_at)
SELECT execution_id, definition_id, coalesce(definitions.name, ''), partition,
       CASE WHEN input_text IS NULL THEN 'PENDING' ELSE 'RUNNING' END, input_text, wanted.created_at,
       CASE WHEN input_text IS NOT NULL THEN wanted.created_at END
FROM wanted LEFT JOIN definitions USING (definition_id)
WHERE claim_key IS NULL OR execution_id IN (SELECT execution_id FROM claimed)
RETURNING execution_id;

-- name: trigger_executions
-- PENDING becomes RUNNING, unless the claim was made before; returns the place of those that did in the batch.
WITH wanted AS (
    SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::text[], $5::text[], $6::bigint[])
    WITH ORDINALITY AS row (execution_id, input_text, started_at, claim_key, fingerprint, claimed_at, place)
), triggered AS (
    UPDATE executions SET state = 'RUNNING', input_text = wanted.input_text, started_at = wanted.started_at
    FROM wanted
    WHERE executions.execution_id = wanted.execution_id AND executions.state = 'PENDING'
          AND NOT EXISTS (SELECT FROM idempotency_claims WHERE claim_key = wanted.claim_key)
    RETURNING wanted.*, executions.definition_id
), claimed AS (
    INSERT INTO idempotency_claims (claim_key, fingerprint, execution_id, definition_id, created_at)
    SELECT claim_key, fingerprint, execution_id, definition_id, claimed_at FROM triggered WHERE claim_key IS NOT NULL
)
SELECT place FROM triggered;

-- name: find_claims
-- What was answered to requests under these keys.
SELECT claim_key, fingerprint, execution_id, definition_id FROM idempotency_claims WHERE claim_key = ANY ($1::text[]);

-- name: delete_claims
-- The oldest claims made before a moment.
DELETE FROM idempotency_claims WHERE claim_key IN (
    SELECT claim_key FROM idempotency_claims WHERE created_at < $1 ORDER BY created_at LIMIT $2
)
RETURNING claim_key;

-- name: cancel_pending
-- PENDING becomes CANCELLED, for those that still are PENDING.
UPDATE executions SET state = 'CANCELLED', completed_at = $2 WHERE execution_id = $1 AND state = 'PENDING'
RETURNING execution_id;

-- name: insert_cancel
-- A cancel for the owner to consume.
INSERT INTO commands (execution_id, created_at) VALUES ($1, $2);

-- name: take_partition
-- Own a partition, if it still is at that version (0: never owned). Its version goes up, so that every
-- former owner's commit misses, and so does a taking that comes late.
INSERT INTO partitions AS p (partition, version, owner)
SELECT $1::integer, $2::bigint + 1, $3::text
WHERE $2 = coalesce((SELECT version FROM partitions WHERE partition = $1), 0)
ON CONFLICT (partition) DO UPDATE SET version = excluded.version, owner = excluded.owner WHERE p.version = $2
RETURNING version;

-- name: partition_version
-- The version of a partition that was ever owned.
SELECT version FROM partitions WHERE partition = $1;

-- name: commit
-- A batch of one partition, all of it or nothing: every part selects from the fence.
WITH fence AS (
    UPDATE partitions SET version = version + 1 WHERE partition = $1 AND version = $2 RETURNING version
), inserted AS (
    INSERT INTO attempts
        (execution_id, sequence, node_id, attempt, state, output, error, started_at, finished_at, retry_at)
    SELECT row.* FROM fence, unnest(
        $3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::text[], $8::bytea[], $9::bytea[], $10::bigint[],
        $11::bigint[], $12::bigint[]
    ) AS row
), changed AS (
    UPDATE executions
    SET state = row.state, error = row.error, completed_at = row.completed_at, parked_until = row.parked_until
    FROM fence, unnest($13::text[], $14::text[], $15::bytea[], $16::bigint[], $17::bigint[])
        AS row (execution_id, state, error, completed_at, parked_until)
    WHERE executions.execution_id = row.execution_id AND executions.state = 'RUNNING'
), consumed AS (
    UPDATE commands SET consumed = true, sequence = row.sequence
    FROM fence, unnest($18::bigint[], $19::bigint[]) AS row (command_id, sequence)
    WHERE commands.command_id = row.command_id
)
SELECT version FROM fence;

-- name: find_work
-- The oldest executions that want an owner's attention: ready to run, due, or with a command.
SELECT execution_id FROM (
    (SELECT execution_id FROM executions
     WHERE state = 'RUNNING' AND partition = $1 AND parked_until IS NULL ORDER BY execution_id LIMIT $3)
    UNION
    (SELECT execution_id FROM executions
     WHERE state = 'RUNNING' AND partition = $1 AND parked_until <= $2 ORDER BY execution_id LIMIT $3)
    UNION
    (SELECT commands.execution_id FROM commands JOIN executions USING (execution_id)
     WHERE NOT consumed AND partition = $1)
) AS found
ORDER BY execution_id LIMIT $3;

-- name: next_due_at
-- When the next parked execution is due.
SELECT min(parked_until) FROM executions WHERE state = 'RUNNING' AND partition = $1 AND parked_until > $2;

-- name: load_executions
-- Everything of some executions in one statement, which is one snapshot. The first column says what a row is:
-- an execution, an attempt, a command. $2 says whether outputs are wanted.
SELECT 0 AS kind, execution_id, definition_id AS text_1, partition::bigint AS number_1, state, input_text AS bytes_1,
       error, created_at AS number_2, started_at AS number_3, completed_at AS number_4, parked_until AS number_5
FROM executions WHERE execution_id = ANY ($1::text[])
UNION ALL
SELECT 1, execution_id, node_id, attempt, state, CASE WHEN $2 THEN output END, error, sequence, started_at,
       finished_at, retry_at
FROM attempts WHERE execution_id = ANY ($1::text[])
UNION ALL
SELECT 2, execution_id, NULL, command_id, NULL, NULL, NULL, created_at, consumed::integer, sequence, NULL
FROM commands WHERE execution_id = ANY ($1::text[]);

-- name: read_cancels
-- The unconsumed cancels of some executions.
SELECT command_id, execution_id, created_at, consumed, sequence FROM commands
WHERE NOT consumed AND execution_id = ANY ($1::text[]) ORDER BY command_id;

-- name: read_execution
-- One execution's row.
SELECT execution_id, definition_id, partition, state, input_text, error, created_at, started_at, completed_at,
       parked_until
FROM executions WHERE execution_id = $1;

-- name: read_outputs
-- The outputs of some completed nodes.
SELECT node_id, output FROM attempts
WHERE execution_id = $1 AND state = 'COMPLETED' AND node_id = ANY ($2::text[]);

-- name: list_executions
-- The newest executions between two identifiers: $1 and above, below $2.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), state, found.created_at, started_at,
       completed_at, error
FROM (
    SELECT * FROM executions WHERE execution_id >= $1 AND execution_id < $2 ORDER BY execution_id DESC LIMIT $3
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: list_executions_by_state
-- The same, of some states: a page of each state from its index, then the newest of them.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), found.state, found.created_at, started_at,
       completed_at, error
FROM (
    SELECT page.* FROM unnest($4::text[]) AS wanted (state), LATERAL (
        SELECT * FROM executions
        WHERE executions.state = wanted.state AND execution_id >= $1 AND execution_id < $2
        ORDER BY execution_id DESC LIMIT $3
    ) AS page
    ORDER BY page.execution_id DESC LIMIT $3
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: list_executions_by_name
-- The same, of one name and some states.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), found.state, found.created_at, started_at,
       completed_at, error
FROM (
    SELECT page.* FROM unnest($4::text[]) AS wanted (state), LATERAL (
        SELECT * FROM executions
        WHERE executions.name = $5 AND executions.state = wanted.state AND execution_id >= $1 AND execution_id < $2
        ORDER BY execution_id DESC LIMIT $3
    ) AS page
    ORDER BY page.execution_id DESC LIMIT $3
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: delete_ended_executions
-- The oldest executions that ended before a moment, with everything of them. What was created after it has not
-- ended before it.
WITH ended AS (
    SELECT page.execution_id FROM unnest($1::text[]) AS wanted (state), LATERAL (
        SELECT execution_id FROM executions
        WHERE executions.state = wanted.state AND execution_id < $2 AND completed_at < $3
        ORDER BY execution_id LIMIT $4
    ) AS page
    LIMIT $4
), deleted AS (
    DELETE FROM executions USING ended WHERE executions.execution_id = ended.execution_id
    RETURNING executions.execution_id
), attempts_deleted AS (
    DELETE FROM attempts USING deleted WHERE attempts.execution_id = deleted.execution_id
), commands_deleted AS (
    DELETE FROM commands USING deleted WHERE commands.execution_id = deleted.execution_id
)
SELECT execution_id FROM deleted;

-- name: add_key
-- An API key.
INSERT INTO api_keys (key_id, name, digest, scopes, created_at, expires_at, revoked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: list_keys
-- Every API key, oldest first.
SELECT key_id, name, digest, scopes, created_at, expires_at, revoked_at FROM api_keys ORDER BY created_at, key_id;

-- name: find_key
-- The API key whose text has this digest.
SELECT key_id, name, digest, scopes, created_at, expires_at, revoked_at FROM api_keys WHERE digest = $1;

-- name: revoke_key
-- Revoke a key that is not revoked.
UPDATE api_keys SET revoked_at = $1 WHERE key_id = $2 AND revoked_at IS NULL RETURNING key_id;

-- name: ping
-- Whether the database answers and takes writes; `in_recovery` is a standby, or a server that comes up.
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS in_recovery;
