-- Named queries for SQLite. `:rows` stands for as many "(?, ?, ...)" as a batch has rows: one statement
-- for many rows costs one step, and so gives up the interpreter's lock once, not once a row.

-- name: create_migrations_table
-- The list of applied migrations.
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    digest     TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

-- name: count_migrations_table
-- Whether there is a list of applied migrations: 0 in a database that has never been migrated, else 1.
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'schema_migrations';

-- name: list_migrations
-- What has been applied.
SELECT number, name, digest FROM schema_migrations ORDER BY number;

-- name: insert_migration
-- Note an applied migration.
INSERT INTO schema_migrations (number, name, digest, applied_at) VALUES (?, ?, ?, ?);

-- name: find_digest
-- The definition of that name and digest.
SELECT definition_id, name, version, digest, created_at FROM definitions WHERE name = ? AND digest = ?;

-- name: find_version
-- One version of a name.
SELECT definition_id, name, version, digest, created_at FROM definitions WHERE name = ? AND version = ?;

-- name: find_latest
-- The latest version of a name.
SELECT definition_id, name, version, digest, created_at FROM definitions WHERE name = ?
ORDER BY version DESC LIMIT 1;

-- name: list_definitions
-- The latest version of each name behind `:after`. Both steps go by the index of (name, version).
SELECT definition_id, name, version, digest, created_at FROM definitions
WHERE (name, version) IN (
    SELECT name, max(version) FROM definitions WHERE name > :after GROUP BY name ORDER BY name LIMIT :limit
)
ORDER BY name;

-- name: list_versions
-- The versions of a name below `:below`, newest first.
SELECT definition_id, name, version, digest, created_at FROM definitions
WHERE name = :name AND version < :below ORDER BY version DESC LIMIT :limit;

-- name: insert_definition
-- A definition as the next version of its name.
INSERT INTO definitions (definition_id, name, version, digest, body, created_at)
SELECT :definition_id, :name, coalesce(max(version), 0) + 1, :digest, :body, :created_at
FROM definitions WHERE name = :name;

-- name: insert_executions
-- New executions, PENDING or RUNNING, with the name of their definition.
WITH created (execution_id, definition_id, "partition", state, input_text, created_at, started_at) AS (VALUES :rows)
INSERT INTO executions (execution_id, definition_id, "partition", state, input_text, created_at, started_at, name)
SELECT created.execution_id, created.definition_id, created."partition", created.state, created.input_text,
       created.created_at, created.started_at, coalesce(definitions.name, '')
FROM created LEFT JOIN definitions ON definitions.definition_id = created.definition_id;

-- name: find_claims
-- What was answered to requests under these keys.
SELECT claim_key, fingerprint, execution_id, definition_id FROM idempotency_claims
WHERE claim_key IN (SELECT value FROM json_each(:claim_keys));

-- name: insert_claims
-- What is answered to requests under their keys.
INSERT INTO idempotency_claims (claim_key, fingerprint, created_at, execution_id, definition_id) VALUES :rows;

-- name: delete_claims
-- The oldest claims made before a moment.
DELETE FROM idempotency_claims WHERE claim_key IN (
    SELECT claim_key FROM idempotency_claims WHERE created_at < :created_before ORDER BY created_at LIMIT :limit
);

-- name: trigger_executions
-- PENDING becomes RUNNING; returns those that did.
WITH triggered (execution_id, input_text, started_at) AS (VALUES :rows)
UPDATE executions
SET state = 'RUNNING', input_text = triggered.input_text, started_at = triggered.started_at
FROM triggered
WHERE executions.execution_id = triggered.execution_id AND executions.state = 'PENDING'
RETURNING execution_id;

-- name: cancel_pending
-- PENDING becomes CANCELLED, if it still is PENDING.
UPDATE executions SET state = 'CANCELLED', completed_at = ? WHERE execution_id = ? AND state = 'PENDING';

-- name: insert_cancel
-- A cancel for the owner to consume.
INSERT INTO commands (execution_id, created_at) VALUES (?, ?);

-- name: take_partition
-- Own a partition, if it still is at that version (0: never owned). Its version goes up, so that every
-- former owner's commit misses, and so does a taking that comes late.
INSERT INTO partitions ("partition", version, owner) SELECT :partition, :version + 1, :owner
WHERE :version = coalesce((SELECT version FROM partitions WHERE "partition" = :partition), 0)
ON CONFLICT ("partition") DO UPDATE SET version = excluded.version, owner = excluded.owner
RETURNING version;

-- name: release_partition
-- Own a partition no more, if it still is at that version.
UPDATE partitions SET version = version + 1, owner = '' WHERE "partition" = ? AND version = ?;

-- name: read_partitions
-- Every partition that was ever owned, and by whom: '' when it was released in good order.
SELECT "partition", version, owner FROM partitions;

-- name: fence
-- The condition of every commit: nobody has taken the partition, and no older commit can land later.
UPDATE partitions SET version = version + 1 WHERE "partition" = ? AND version = ?;

-- name: insert_attempts
-- The outcomes of one batch.
INSERT INTO attempts
    (execution_id, sequence, node_id, attempt, state, output, error, started_at, finished_at, retry_at)
VALUES :rows;

-- name: update_executions
-- What a batch changed in executions. Only a RUNNING one changes: a terminal state is final.
WITH changed (execution_id, state, error, completed_at, parked_until) AS (VALUES :rows)
UPDATE executions
SET state = changed.state, error = changed.error, completed_at = changed.completed_at,
    parked_until = changed.parked_until
FROM changed
WHERE executions.execution_id = changed.execution_id AND executions.state = 'RUNNING';

-- name: insert_suspicions
-- Lost deliveries of attempts; each replaces what was known of its attempt.
INSERT INTO suspicions (execution_id, node_id, attempt, lost_deliveries) VALUES :rows
ON CONFLICT (execution_id, node_id, attempt) DO UPDATE SET lost_deliveries = excluded.lost_deliveries;

-- name: consume_command
-- A command has been consumed, with its place in the history.
UPDATE commands SET consumed = 1, sequence = ? WHERE command_id = ?;

-- name: find_work
-- The oldest executions that are ready to run: not parked, or due.
SELECT execution_id FROM (
    SELECT * FROM (
        SELECT execution_id FROM executions
        WHERE state = 'RUNNING' AND "partition" = :partition AND parked_until IS NULL
        ORDER BY execution_id LIMIT :limit
    )
    UNION
    SELECT * FROM (
        SELECT execution_id FROM executions
        WHERE state = 'RUNNING' AND "partition" = :partition AND parked_until <= :now
        ORDER BY execution_id LIMIT :limit
    )
)
ORDER BY execution_id LIMIT :limit;

-- name: find_commanded
-- The oldest executions with a cancel that nobody has consumed.
SELECT DISTINCT commands.execution_id FROM commands JOIN executions USING (execution_id)
WHERE consumed = 0 AND "partition" = :partition ORDER BY commands.execution_id LIMIT :limit;

-- name: next_due_at
-- When the next parked execution is due.
SELECT min(parked_until) FROM executions
WHERE state = 'RUNNING' AND "partition" = :partition AND parked_until > :now;

-- name: oldest_ready
-- Since when the oldest execution that is ready to run is so, NULL when there is none: the first of those that are not
-- parked, or the first that was due.
SELECT min(since) FROM (
    SELECT * FROM (
        SELECT started_at AS since FROM executions
        WHERE state = 'RUNNING' AND "partition" = :partition AND parked_until IS NULL
        ORDER BY execution_id LIMIT 1
    )
    UNION ALL
    SELECT * FROM (
        SELECT parked_until FROM executions
        WHERE state = 'RUNNING' AND "partition" = :partition AND parked_until <= :now
        ORDER BY parked_until LIMIT 1
    )
);

-- name: load_executions
-- Everything of some executions in one statement, which is one snapshot. The first column says what a row is.
SELECT 0 AS kind, execution_id, definition_id, "partition", state, input_text, error, created_at, started_at,
       completed_at, parked_until, retry_of, resolution
FROM executions WHERE execution_id IN (SELECT value FROM json_each(:execution_ids))
UNION ALL
SELECT 1, execution_id, sequence, node_id, attempt, state, CASE WHEN :with_outputs THEN output END, error,
       started_at, finished_at, retry_at, NULL, NULL
FROM attempts WHERE execution_id IN (SELECT value FROM json_each(:execution_ids))
UNION ALL
SELECT 2, command_id, execution_id, created_at, consumed, sequence, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM commands WHERE execution_id IN (SELECT value FROM json_each(:execution_ids))
UNION ALL
SELECT 3, execution_id, node_id, attempt, lost_deliveries, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM suspicions WHERE execution_id IN (SELECT value FROM json_each(:execution_ids));

-- name: load_outlines
-- The same, where of an input or an output it is only told that it is there: empty text stands for it.
SELECT 0 AS kind, execution_id, definition_id, "partition", state, CASE WHEN input_text IS NOT NULL THEN x'' END,
       error, created_at, started_at, completed_at, parked_until, retry_of, resolution
FROM executions WHERE execution_id IN (SELECT value FROM json_each(:execution_ids))
UNION ALL
SELECT 1, execution_id, sequence, node_id, attempt, state, CASE WHEN output IS NOT NULL THEN x'' END, error,
       started_at, finished_at, retry_at, NULL, NULL
FROM attempts WHERE execution_id IN (SELECT value FROM json_each(:execution_ids))
UNION ALL
SELECT 2, command_id, execution_id, created_at, consumed, sequence, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM commands WHERE execution_id IN (SELECT value FROM json_each(:execution_ids))
UNION ALL
SELECT 3, execution_id, node_id, attempt, lost_deliveries, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM suspicions WHERE execution_id IN (SELECT value FROM json_each(:execution_ids));

-- name: load_nodes
-- The same of some nodes alone, without commands. `:wanted` is a JSON array of [execution, [node, ...]].
SELECT 0 AS kind, execution_id, definition_id, "partition", state, input_text, error, created_at, started_at,
       completed_at, parked_until, retry_of, resolution
FROM executions WHERE execution_id IN (SELECT json_extract(value, '$[0]') FROM json_each(:wanted))
UNION ALL
SELECT 1, execution_id, sequence, node_id, attempt, state, output, error, started_at, finished_at, retry_at, NULL, NULL
FROM json_each(:wanted) AS execution CROSS JOIN json_each(execution.value, '$[1]') AS node CROSS JOIN attempts
WHERE execution_id = json_extract(execution.value, '$[0]') AND node_id = node.value
UNION ALL
SELECT 3, execution_id, node_id, attempt, lost_deliveries, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM json_each(:wanted) AS execution CROSS JOIN json_each(execution.value, '$[1]') AS node CROSS JOIN suspicions
WHERE execution_id = json_extract(execution.value, '$[0]') AND node_id = node.value;

-- name: read_cancels
-- The unconsumed cancels of some executions.
SELECT command_id, execution_id, created_at, consumed, sequence FROM commands
WHERE consumed = 0 AND execution_id IN (SELECT value FROM json_each(:execution_ids))
ORDER BY command_id;

-- name: read_execution
-- One execution's row.
SELECT execution_id, definition_id, "partition", state, input_text, error, created_at, started_at, completed_at,
       parked_until, retry_of, resolution
FROM executions WHERE execution_id = ?;

-- name: list_execution_ids
-- The identifiers behind `:after`, in their order, which is that of creation.
SELECT execution_id FROM executions WHERE execution_id > :after ORDER BY execution_id LIMIT :limit;

-- name: list_claims
-- What was answered to requests under the keys behind `:after`, by key.
SELECT claim_key, execution_id, definition_id, created_at FROM idempotency_claims
WHERE claim_key > :after ORDER BY claim_key LIMIT :limit;

-- name: list_executions
-- The newest executions between two identifiers. Only one page of rows meets the definitions.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), state, found.created_at, started_at,
       completed_at, error, retry_of
FROM (
    SELECT * FROM executions WHERE execution_id >= :lowest AND execution_id < :before
    ORDER BY execution_id DESC LIMIT :limit
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: list_executions_by_state
-- The same, of some states (a JSON array): a page of each state from its index, then the newest of them.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), state, found.created_at, started_at,
       completed_at, error, retry_of
FROM (
    SELECT executions.* FROM json_each(:states) AS wanted CROSS JOIN executions
    WHERE executions.execution_id IN (
        SELECT execution_id FROM executions
        WHERE state = wanted.value AND execution_id >= :lowest AND execution_id < :before
        ORDER BY execution_id DESC LIMIT :limit
    )
    ORDER BY executions.execution_id DESC LIMIT :limit
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: list_executions_by_name
-- The same, of one name and some states.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), state, found.created_at, started_at,
       completed_at, error, retry_of
FROM (
    SELECT executions.* FROM json_each(:states) AS wanted CROSS JOIN executions
    WHERE executions.execution_id IN (
        SELECT execution_id FROM executions
        WHERE name = :name AND state = wanted.value AND execution_id >= :lowest AND execution_id < :before
        ORDER BY execution_id DESC LIMIT :limit
    )
    ORDER BY executions.execution_id DESC LIMIT :limit
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: list_dead_letters
-- The newest dead letters between two identifiers. `:mark`: what the text of an error of the wanted type has in it;
-- empty for all types. Without a hint SQLite would walk all that has FAILED.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), state, found.created_at, started_at,
       completed_at, error, retry_of
FROM (
    SELECT * FROM executions INDEXED BY executions_dead_letters
    WHERE state = 'FAILED' AND resolution IS NULL AND execution_id >= :lowest AND execution_id < :before
          AND (:mark = '' OR instr(error, :mark) > 0)
    ORDER BY execution_id DESC LIMIT :limit
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: list_dead_letters_by_name
-- The same, of one name.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), state, found.created_at, started_at,
       completed_at, error, retry_of
FROM (
    SELECT * FROM executions INDEXED BY executions_by_name
    WHERE name = :name AND state = 'FAILED' AND resolution IS NULL
          AND execution_id >= :lowest AND execution_id < :before AND (:mark = '' OR instr(error, :mark) > 0)
    ORDER BY execution_id DESC LIMIT :limit
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: read_dead_letter
-- One dead letter, as a list shows it.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), state, found.created_at, started_at,
       completed_at, error, retry_of
FROM executions AS found LEFT JOIN definitions USING (definition_id)
WHERE found.execution_id = ? AND state = 'FAILED' AND resolution IS NULL;

-- name: list_attempts
-- The last attempts of an execution below a place in its history, the last one first, without outputs.
SELECT execution_id, sequence, node_id, attempt, state, NULL, error, started_at, finished_at, retry_at
FROM attempts WHERE execution_id = :execution_id AND sequence < :below ORDER BY sequence DESC LIMIT :limit;

-- name: resolve
-- What becomes of a dead letter, once.
UPDATE executions SET resolution = :resolution
WHERE execution_id = :execution_id AND state = 'FAILED' AND resolution IS NULL;

-- name: insert_retry
-- The execution that carries a dead letter on: of the same definition, with the same inputs.
INSERT INTO executions
    (execution_id, definition_id, name, "partition", state, input_text, created_at, started_at, retry_of)
SELECT :new_id, definition_id, name, :partition, 'RUNNING', input_text, :created_at, :created_at, execution_id
FROM executions WHERE execution_id = :execution_id;

-- name: copy_completed
-- What a dead letter has completed, as the beginning of another history: each node's first attempt, in the same order.
INSERT INTO attempts
    (execution_id, sequence, node_id, attempt, state, output, error, started_at, finished_at, retry_at)
SELECT :new_id, row_number() OVER (ORDER BY sequence), node_id, 1, state, output, NULL, started_at, finished_at, NULL
FROM attempts WHERE execution_id = :execution_id AND state = 'COMPLETED';

-- name: find_retry
-- The execution that carries another one on.
SELECT execution_id FROM executions WHERE retry_of = ?;

-- name: delete_ended_executions
-- The oldest executions that ended before a moment. What was created after it has not ended before it.
DELETE FROM executions WHERE execution_id IN (
    SELECT executions.execution_id FROM json_each(:states) AS wanted CROSS JOIN executions
    WHERE executions.execution_id IN (
        SELECT execution_id FROM executions
        WHERE state = wanted.value AND execution_id < :before AND completed_at < :ended_before
        ORDER BY execution_id LIMIT :limit
    )
    LIMIT :limit
)
RETURNING execution_id;

-- name: delete_attempts
-- The attempts of deleted executions.
DELETE FROM attempts WHERE execution_id IN (SELECT value FROM json_each(:execution_ids));

-- name: delete_suspicions
-- What was known of lost deliveries of deleted executions.
DELETE FROM suspicions WHERE execution_id IN (SELECT value FROM json_each(:execution_ids));

-- name: delete_commands
-- The commands of deleted executions.
DELETE FROM commands WHERE execution_id IN (SELECT value FROM json_each(:execution_ids));

-- name: read_outputs
-- The outputs of some completed nodes.
SELECT node_id, output FROM attempts
WHERE execution_id = :execution_id AND state = 'COMPLETED'
      AND node_id IN (SELECT value FROM json_each(:node_ids));

-- name: read_definition
-- One definition.
SELECT definition_id, name, version, digest, body, created_at FROM definitions WHERE definition_id = ?;

-- name: ping
-- Whether the database answers.
SELECT count(*) FROM schema_migrations;

-- name: touch
-- A write that changes nothing, to find out whether writing works.
UPDATE partitions SET owner = owner WHERE "partition" = (SELECT min("partition") FROM partitions);

-- name: add_key
-- An API key.
INSERT INTO api_keys (key_id, name, digest, scopes, created_at, expires_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: list_keys
-- Every API key, oldest first.
SELECT key_id, name, digest, scopes, created_at, expires_at, revoked_at FROM api_keys ORDER BY created_at, key_id;

-- name: find_key
-- The API key whose text has this digest.
SELECT key_id, name, digest, scopes, created_at, expires_at, revoked_at FROM api_keys WHERE digest = ?;

-- name: revoke_key
-- Revoke a key that is not revoked.
UPDATE api_keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL;

-- name: save_handlers
-- The handlers that a process has, each in place of what was known of it.
INSERT INTO handlers (name, description, config_schema, distribution, version, output_schema, declared, seen_at)
VALUES :rows
ON CONFLICT (name) DO UPDATE SET description = excluded.description, config_schema = excluded.config_schema,
    distribution = excluded.distribution, version = excluded.version, output_schema = excluded.output_schema,
    declared = excluded.declared, seen_at = excluded.seen_at;

-- name: list_handlers
-- The handlers that some process has had since a moment.
SELECT name, description, config_schema, distribution, version, output_schema, declared
FROM handlers WHERE seen_at >= ? ORDER BY name;

-- name: export_definitions
-- Every definition, to be copied elsewhere.
SELECT definition_id, name, version, digest, body, created_at FROM definitions;

-- name: export_executions
-- Every execution, to be copied elsewhere.
SELECT execution_id, definition_id, name, state, input_text, error, created_at, started_at, completed_at, parked_until,
       retry_of, resolution
FROM executions;

-- name: export_attempts
-- Every attempt, to be copied elsewhere.
SELECT execution_id, sequence, node_id, attempt, state, output, error, started_at, finished_at, retry_at
FROM attempts;

-- name: export_commands
-- Every command, to be copied elsewhere.
SELECT command_id, execution_id, created_at, consumed, sequence FROM commands;

-- name: export_suspicions
-- Every attempt that has lost deliveries, to be copied elsewhere.
SELECT execution_id, node_id, attempt, lost_deliveries FROM suspicions;

-- name: export_claims
-- Every idempotency claim, to be copied elsewhere.
SELECT claim_key, fingerprint, execution_id, definition_id, created_at FROM idempotency_claims;

-- name: export_keys
-- Every API key, to be copied elsewhere.
SELECT key_id, name, digest, scopes, created_at, expires_at, revoked_at FROM api_keys;
