-- Lists by name and state, idempotency claims, API keys.

-- The name stands in the row so that an index can serve lists by name, whatever the number of versions.
ALTER TABLE executions ADD COLUMN name TEXT NOT NULL DEFAULT '';
UPDATE executions
SET name = coalesce((SELECT name FROM definitions WHERE definitions.definition_id = executions.definition_id), '');

-- Identifiers sort by the time of creation: the primary key serves lists without a filter, and time in all of them.
CREATE INDEX executions_by_state ON executions (state, execution_id);
CREATE INDEX executions_by_name ON executions (name, state, execution_id);

-- What was answered to a request under an idempotency key. Claims are independent of their executions' lives.
CREATE TABLE idempotency_claims (
    claim_key     TEXT PRIMARY KEY,
    fingerprint   TEXT NOT NULL,
    execution_id  TEXT NOT NULL,
    definition_id TEXT NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_claims_by_age ON idempotency_claims (created_at);

-- API keys: only the SHA-256 of a key's text is here. `scopes` is a JSON array.
CREATE TABLE api_keys (
    key_id     TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    digest     TEXT NOT NULL UNIQUE,
    scopes     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
