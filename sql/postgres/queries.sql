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

-- name: has_migrations_table
-- Whether the database has ever been migrated.
SELECT to_regclass('schema_migrations') IS NOT NULL;

-- name: list_migrations
-- What has been applied.
SELECT number, name, digest FROM schema_migrations ORDER BY number;

-- name: insert_migration
-- Note an applied migration.
INSERT INTO schema_migrations (number, name, digest, applied_at) VALUES ($1, $2, $3, $4);

-- name: lock_migrations
-- One process migrates at a time; the others wait, and find that it is done.
SELECT pg_advisory_xact_lock(hashtextextended('workflow_engine.migrations', 0));

-- name: make_partitions
-- As many partitions as there are meant to be, once.
INSERT INTO partitions (partition) SELECT generate_series(0, $1::integer - 1)
WHERE NOT EXISTS (SELECT FROM partitions)
ON CONFLICT (partition) DO NOTHING;

-- name: count_partitions
-- How many partitions there are.
SELECT count(*) FROM partitions;

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
-- The latest version of some names.
SELECT found.* FROM unnest($1::text[]) AS wanted (name), LATERAL (
    SELECT definition_id, definitions.name, version, digest, created_at FROM definitions
    WHERE definitions.name = wanted.name ORDER BY version DESC LIMIT 1
) AS found;

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

-- name: attend
-- Say that a replica is alive for as long as a lease; forget those that are long gone.
WITH gone AS (
    DELETE FROM replicas WHERE greatest(expires_at, described_at) < now() - interval '1 hour' AND replica_id <> $1
)
INSERT INTO replicas (replica_id, expires_at) VALUES ($1, now() + $2 * interval '1 second')
ON CONFLICT (replica_id) DO UPDATE SET expires_at = excluded.expires_at;

-- name: live_replicas
-- Who is alive.
SELECT replica_id FROM replicas WHERE expires_at > now() OR replica_id = $1 ORDER BY replica_id;

-- name: read_partitions
-- Every partition, with what is left of its lease, in seconds.
SELECT partition, version, owner,
       CASE WHEN expires_at = '-infinity' THEN 0 ELSE extract(epoch FROM expires_at - now())::float8 END
FROM partitions ORDER BY partition;

-- name: leave
-- Say that a replica is no more.
DELETE FROM replicas WHERE replica_id = $1;

-- name: checkpoint
-- What a replica says of itself. Whether it is a live orchestrator is its lease's affair.
INSERT INTO replicas (replica_id, described, described_at) VALUES ($1, $2, now())
ON CONFLICT (replica_id) DO UPDATE SET described = excluded.described, described_at = excluded.described_at;

-- name: list_checkpoints
-- What each replica last said of itself, with its age in seconds.
SELECT described, extract(epoch FROM now() - described_at)::float8 FROM replicas
WHERE described IS NOT NULL ORDER BY replica_id;

-- name: take_partition
-- Own a partition, if it still is at that version, and it is this owner's, nobody's or expired. Its version goes up,
-- so that every former owner's commit misses, and so does a taking that comes late.
UPDATE partitions SET version = version + 1, owner = $3, expires_at = now() + $4 * interval '1 second'
WHERE partition = $1 AND version = $2 AND (owner IN ($3, '') OR expires_at <= now())
RETURNING version;

-- name: release_partition
-- Own a partition no more, if it still is at that version.
UPDATE partitions SET version = version + 1, owner = '', expires_at = '-infinity'
WHERE partition = $1 AND version = $2
RETURNING version;

-- name: commit
-- Batches of some partitions ($1 and $2: which, and their versions), each if it still is at its version: every part
-- selects from the fence. The rows are locked in one order, so that two replicas never wait for each other.
WITH held AS (
    SELECT partition, version FROM partitions JOIN unnest($1::integer[], $2::bigint[]) AS wanted (partition, version)
    USING (partition, version) WHERE owner <> '' ORDER BY partition FOR UPDATE OF partitions
), fence AS (
    UPDATE partitions SET version = partitions.version + 1, expires_at = now() + $3 * interval '1 second'
    FROM held WHERE partitions.partition = held.partition AND partitions.version = held.version
    RETURNING partitions.partition, partitions.version
), inserted AS (
    INSERT INTO attempts
        (execution_id, sequence, node_id, attempt, state, output, error, started_at, finished_at, retry_at)
    SELECT execution_id, sequence, node_id, attempt, state, output, error, started_at, finished_at, retry_at
    FROM fence JOIN unnest(
        $4::integer[], $5::text[], $6::bigint[], $7::text[], $8::bigint[], $9::text[], $10::bytea[], $11::bytea[],
        $12::bigint[], $13::bigint[], $14::bigint[]
    ) AS row (partition, execution_id, sequence, node_id, attempt, state, output, error, started_at, finished_at,
              retry_at) USING (partition)
), changed AS (
    UPDATE executions
    SET state = row.state, error = row.error, completed_at = row.completed_at, parked_until = row.parked_until
    FROM fence JOIN unnest(
        $15::integer[], $16::text[], $17::text[], $18::bytea[], $19::bigint[], $20::bigint[]
    ) AS row (partition, execution_id, state, error, completed_at, parked_until) USING (partition)
    WHERE executions.execution_id = row.execution_id AND executions.state = 'RUNNING'
), consumed AS (
    UPDATE commands SET consumed = true, sequence = row.sequence
    FROM fence JOIN unnest($21::integer[], $22::bigint[], $23::bigint[]) AS row (partition, command_id, sequence)
    USING (partition)
    WHERE commands.command_id = row.command_id
), suspected AS (
    INSERT INTO suspicions (execution_id, node_id, attempt, lost_deliveries)
    SELECT execution_id, node_id, attempt, lost_deliveries
    FROM fence JOIN unnest($24::integer[], $25::text[], $26::text[], $27::bigint[], $28::bigint[])
    AS row (partition, execution_id, node_id, attempt, lost_deliveries) USING (partition)
    ON CONFLICT (execution_id, node_id, attempt) DO UPDATE SET lost_deliveries = excluded.lost_deliveries
)
SELECT partition, version FROM fence;

-- name: find_work
-- The oldest executions that are ready to run: not parked, or due. A page of each partition, then the oldest of them.
SELECT ready.execution_id FROM unnest($1::integer[]) AS owned (partition), LATERAL (
    (SELECT execution_id FROM executions
     WHERE state = 'RUNNING' AND executions.partition = owned.partition AND parked_until IS NULL
     ORDER BY execution_id LIMIT $3)
    UNION ALL
    (SELECT execution_id FROM executions
     WHERE state = 'RUNNING' AND executions.partition = owned.partition AND parked_until <= $2
     ORDER BY execution_id LIMIT $3)
) AS ready
ORDER BY execution_id LIMIT $3;

-- name: find_commanded
-- The oldest executions with a cancel that nobody has consumed.
SELECT DISTINCT commands.execution_id FROM commands JOIN executions USING (execution_id)
WHERE NOT consumed AND partition = ANY ($1::integer[]) ORDER BY execution_id LIMIT $2;

-- name: next_due_at
-- When the next parked execution is due.
SELECT min(next.parked_until) FROM unnest($1::integer[]) AS owned (partition), LATERAL (
    SELECT parked_until FROM executions
    WHERE state = 'RUNNING' AND executions.partition = owned.partition AND parked_until > $2
    ORDER BY parked_until LIMIT 1
) AS next;

-- name: oldest_ready
-- Since when the oldest execution that is ready to run is so, for some partitions that have one: the first of those that
-- are not parked, or the first that was due.
SELECT wanted.partition, min(ready.since) FROM unnest($1::integer[]) AS wanted (partition), LATERAL (
    (SELECT started_at AS since FROM executions
     WHERE state = 'RUNNING' AND executions.partition = wanted.partition AND parked_until IS NULL
     ORDER BY execution_id LIMIT 1)
    UNION ALL
    (SELECT parked_until FROM executions
     WHERE state = 'RUNNING' AND executions.partition = wanted.partition AND parked_until <= $2
     ORDER BY parked_until LIMIT 1)
) AS ready
GROUP BY wanted.partition;

-- name: load_executions
-- Everything of some executions in one statement, which is one snapshot. The first column says what a row is:
-- an execution, an attempt, a command, an attempt's lost deliveries. $2 says whether outputs are wanted.
SELECT 0 AS kind, execution_id, definition_id AS text_1, partition::bigint AS number_1, state, input_text AS bytes_1,
       error, created_at AS number_2, started_at AS number_3, completed_at AS number_4, parked_until AS number_5,
       retry_of, resolution
FROM executions WHERE execution_id = ANY ($1::text[])
UNION ALL
SELECT 1, execution_id, node_id, attempt, state, CASE WHEN $2 THEN output END, error, sequence, started_at,
       finished_at, retry_at, NULL, NULL
FROM attempts WHERE execution_id = ANY ($1::text[])
UNION ALL
SELECT 2, execution_id, NULL, command_id, NULL, NULL, NULL, created_at, consumed::integer, sequence, NULL, NULL, NULL
FROM commands WHERE execution_id = ANY ($1::text[])
UNION ALL
SELECT 3, execution_id, node_id, attempt, NULL, NULL, NULL, lost_deliveries, NULL, NULL, NULL, NULL, NULL
FROM suspicions WHERE execution_id = ANY ($1::text[]);

-- name: load_outlines
-- The same, where of an input or an output it is only told that it is there: empty text stands for it.
SELECT 0 AS kind, execution_id, definition_id AS text_1, partition::bigint AS number_1, state,
       CASE WHEN input_text IS NOT NULL THEN ''::bytea END AS bytes_1, error, created_at AS number_2,
       started_at AS number_3, completed_at AS number_4, parked_until AS number_5, retry_of, resolution
FROM executions WHERE execution_id = ANY ($1::text[])
UNION ALL
SELECT 1, execution_id, node_id, attempt, state, CASE WHEN output IS NOT NULL THEN ''::bytea END, error, sequence,
       started_at, finished_at, retry_at, NULL, NULL
FROM attempts WHERE execution_id = ANY ($1::text[])
UNION ALL
SELECT 2, execution_id, NULL, command_id, NULL, NULL, NULL, created_at, consumed::integer, sequence, NULL, NULL, NULL
FROM commands WHERE execution_id = ANY ($1::text[])
UNION ALL
SELECT 3, execution_id, node_id, attempt, NULL, NULL, NULL, lost_deliveries, NULL, NULL, NULL, NULL, NULL
FROM suspicions WHERE execution_id = ANY ($1::text[]);

-- name: load_nodes
-- The same of some nodes alone, without commands: $2 and $3 are executions and nodes, pair by pair. OFFSET 0 keeps
-- each pair a step of its own in the index: as a join, many pairs would be worth a walk through the whole table.
SELECT 0 AS kind, execution_id, definition_id AS text_1, partition::bigint AS number_1, state, input_text AS bytes_1,
       error, created_at AS number_2, started_at AS number_3, completed_at AS number_4, parked_until AS number_5,
       retry_of, resolution
FROM executions WHERE execution_id = ANY ($1::text[])
UNION ALL
SELECT found.* FROM unnest($2::text[], $3::text[]) AS wanted (execution_id, node_id), LATERAL (
    SELECT 1, execution_id, node_id, attempt, state, output, error, sequence, started_at, finished_at, retry_at,
           NULL, NULL
    FROM attempts WHERE attempts.execution_id = wanted.execution_id AND attempts.node_id = wanted.node_id OFFSET 0
) AS found
UNION ALL
SELECT found.* FROM unnest($2::text[], $3::text[]) AS wanted (execution_id, node_id), LATERAL (
    SELECT 3, execution_id, node_id, attempt, NULL, NULL::bytea, NULL::bytea, lost_deliveries, NULL::bigint,
           NULL::bigint, NULL::bigint, NULL, NULL
    FROM suspicions
    WHERE suspicions.execution_id = wanted.execution_id AND suspicions.node_id = wanted.node_id OFFSET 0
) AS found;

-- name: read_cancels
-- The unconsumed cancels of some executions.
SELECT command_id, execution_id, created_at, consumed, sequence FROM commands
WHERE NOT consumed AND execution_id = ANY ($1::text[]) ORDER BY command_id;

-- name: read_executions
-- Some executions' rows.
SELECT execution_id, definition_id, partition, state, input_text, error, created_at, started_at, completed_at,
       parked_until, retry_of, resolution
FROM executions WHERE execution_id = ANY ($1::text[]);

-- name: read_outputs
-- The outputs of some completed nodes: $1 and $2 are executions and nodes, pair by pair.
SELECT attempts.execution_id, attempts.node_id, output
FROM unnest($1::text[], $2::text[]) AS wanted (execution_id, node_id) JOIN attempts USING (execution_id, node_id)
WHERE state = 'COMPLETED';

-- name: list_execution_ids
-- The identifiers behind $1, in their order, which is that of creation.
SELECT execution_id FROM executions WHERE execution_id > $1 ORDER BY execution_id LIMIT $2;

-- name: list_claims
-- What was answered to requests under the keys behind $1, by key.
SELECT claim_key, execution_id, definition_id, created_at FROM idempotency_claims
WHERE claim_key > $1 ORDER BY claim_key LIMIT $2;

-- name: list_executions
-- The newest executions between two identifiers: $1 and above, below $2.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), state, found.created_at, started_at,
       completed_at, error, retry_of
FROM (
    SELECT * FROM executions WHERE execution_id >= $1 AND execution_id < $2 ORDER BY execution_id DESC LIMIT $3
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: list_executions_by_state
-- The same, of some states: a page of each state from its index, then the newest of them.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), found.state, found.created_at, started_at,
       completed_at, error, retry_of
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
       completed_at, error, retry_of
FROM (
    SELECT page.* FROM unnest($4::text[]) AS wanted (state), LATERAL (
        SELECT * FROM executions
        WHERE executions.name = $5 AND executions.state = wanted.state AND execution_id >= $1 AND execution_id < $2
        ORDER BY execution_id DESC LIMIT $3
    ) AS page
    ORDER BY page.execution_id DESC LIMIT $3
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: list_dead_letters
-- The newest dead letters between two identifiers: $1 and above, below $2. $4: what the text of an error of the
-- wanted type has in it; empty for all types.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), found.state, found.created_at, started_at,
       completed_at, error, retry_of
FROM (
    SELECT * FROM executions
    WHERE state = 'FAILED' AND resolution IS NULL AND execution_id >= $1 AND execution_id < $2
          AND ($4::bytea = '' OR position($4 IN error) > 0)
    ORDER BY execution_id DESC LIMIT $3
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: list_dead_letters_by_name
-- The same, of one name.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), found.state, found.created_at, started_at,
       completed_at, error, retry_of
FROM (
    SELECT * FROM executions
    WHERE name = $5 AND state = 'FAILED' AND resolution IS NULL AND execution_id >= $1 AND execution_id < $2
          AND ($4::bytea = '' OR position($4 IN error) > 0)
    ORDER BY execution_id DESC LIMIT $3
) AS found LEFT JOIN definitions USING (definition_id)
ORDER BY found.execution_id DESC;

-- name: read_dead_letter
-- One dead letter, as a list shows it.
SELECT found.execution_id, definition_id, found.name, coalesce(version, 0), found.state, found.created_at, started_at,
       completed_at, error, retry_of
FROM executions AS found LEFT JOIN definitions USING (definition_id)
WHERE found.execution_id = $1 AND found.state = 'FAILED' AND resolution IS NULL;

-- name: list_attempts
-- The last attempts of an execution below a place in its history, the last one first, without outputs.
SELECT execution_id, sequence, node_id, attempt, state, NULL, error, started_at, finished_at, retry_at
FROM attempts WHERE execution_id = $1 AND sequence < $2 ORDER BY sequence DESC LIMIT $3;

-- name: discard
-- A dead letter is one no more.
UPDATE executions SET resolution = 'discarded' WHERE execution_id = $1 AND state = 'FAILED' AND resolution IS NULL
RETURNING execution_id;

-- name: requeue
-- A dead letter ($1) is carried on by a new execution ($2 to $4), unless the claim ($5 to $7) was made before: of the
-- same definition, with the same inputs, and with what was completed as each node's first attempt, in the same order.
-- Who comes second waits for the letter's lock, and then finds it resolved. All of a letter's attempts are seen: they
-- were committed with its state, or earlier.
WITH letter AS (
    SELECT execution_id, definition_id FROM executions
    WHERE execution_id = $1 AND state = 'FAILED' AND resolution IS NULL FOR UPDATE
), claimed AS (
    INSERT INTO idempotency_claims (claim_key, fingerprint, execution_id, definition_id, created_at)
    SELECT $5::text, $6::text, $2, definition_id, $7::bigint FROM letter WHERE $5::text IS NOT NULL
    ON CONFLICT (claim_key) DO NOTHING
    RETURNING claim_key
), resolved AS (
    UPDATE executions SET resolution = 'requeued' FROM letter
    WHERE executions.execution_id = letter.execution_id
          AND ($5::text IS NULL OR EXISTS (SELECT FROM claimed))
    RETURNING executions.execution_id, executions.definition_id, name, input_text
), copied AS (
    INSERT INTO attempts
        (execution_id, sequence, node_id, attempt, state, output, error, started_at, finished_at, retry_at)
    SELECT $2, row_number() OVER (ORDER BY sequence), node_id, 1, state, output, NULL, started_at, finished_at, NULL
    FROM resolved JOIN attempts USING (execution_id) WHERE state = 'COMPLETED'
)
INSERT INTO executions
    (execution_id, definition_id, name, partition, state, input_text, created_at, started_at, retry_of)
SELECT $2, definition_id, name, $3, 'RUNNING', input_text, $4, $4, execution_id FROM resolved
RETURNING execution_id;

-- name: find_retry
-- The execution that carries another one on.
SELECT execution_id FROM executions WHERE retry_of = $1;

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
), suspicions_deleted AS (
    DELETE FROM suspicions USING deleted WHERE suspicions.execution_id = deleted.execution_id
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

-- name: save_handlers
-- The handlers that a process has, each in place of what was known of it. By name, so that two processes that start at
-- the same time never wait for each other.
INSERT INTO handlers (name, description, config_schema, distribution, version, output_schema, declared, seen_at)
SELECT name, description, config_schema, distribution, version, output_schema, declared, $8
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
AS row (name, description, config_schema, distribution, version, output_schema, declared) ORDER BY name
ON CONFLICT (name) DO UPDATE SET description = excluded.description, config_schema = excluded.config_schema,
    distribution = excluded.distribution, version = excluded.version, output_schema = excluded.output_schema,
    declared = excluded.declared, seen_at = excluded.seen_at;

-- name: list_handlers
-- The handlers that some process has had since a moment.
SELECT name, description, config_schema, distribution, version, output_schema, declared
FROM handlers WHERE seen_at >= $1 ORDER BY name;

-- name: ping
-- Whether the database answers; `only_reads` is a standby, a server that comes up, or one that was told not to write.
SELECT current_setting('server_version') AS version, current_setting('transaction_read_only')::boolean AS only_reads;

-- name: has_data
-- Whether anything has been stored here.
SELECT EXISTS (SELECT FROM definitions) OR EXISTS (SELECT FROM executions) OR EXISTS (SELECT FROM api_keys);

-- name: continue_commands
-- New commands are numbered behind those that were copied.
SELECT setval(pg_get_serial_sequence('commands', 'command_id'), coalesce(max(command_id), 0) + 1, false) FROM commands;
