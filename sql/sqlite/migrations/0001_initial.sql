-- The first schema. Times are milliseconds since the epoch; payloads are JSON text as bytes.

CREATE TABLE definitions (
    definition_id TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    version       INTEGER NOT NULL,
    digest        TEXT NOT NULL,
    body          BLOB NOT NULL,
    created_at    INTEGER NOT NULL,
    UNIQUE (name, version),
    UNIQUE (name, digest)
) STRICT, WITHOUT ROWID;

-- The state of an execution is the fold of its attempts and commands; the row holds it for those who look.
CREATE TABLE executions (
    execution_id  TEXT PRIMARY KEY,
    definition_id TEXT NOT NULL,
    "partition"   INTEGER NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
    input_text    BLOB,
    error         TEXT,
    created_at    INTEGER NOT NULL,
    started_at    INTEGER,
    completed_at  INTEGER,
    parked_until  INTEGER
) STRICT, WITHOUT ROWID;

-- What an owner looks for: only what is in flight is in this index, however much is finished.
CREATE INDEX executions_in_flight ON executions ("partition", parked_until, execution_id) WHERE state = 'RUNNING';

-- One row for each attempt that ended, inserted once. The key is what makes an outcome count once.
CREATE TABLE attempts (
    execution_id TEXT NOT NULL,
    node_id      TEXT NOT NULL,
    attempt      INTEGER NOT NULL,
    sequence     INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('COMPLETED', 'FAILED', 'CANCELLED')),
    output       BLOB,
    error        TEXT,
    started_at   INTEGER,
    finished_at  INTEGER NOT NULL,
    retry_at     INTEGER,
    PRIMARY KEY (execution_id, node_id, attempt)
) STRICT, WITHOUT ROWID;

-- Cancels. `sequence` is the place in the execution's history of one that had an effect.
CREATE TABLE commands (
    command_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    execution_id TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    consumed     INTEGER NOT NULL DEFAULT 0,
    sequence     INTEGER
) STRICT;

CREATE INDEX commands_of_execution ON commands (execution_id);
CREATE INDEX commands_unconsumed ON commands (execution_id) WHERE consumed = 0;

-- Every commit and every taking raises the version: it fences off whoever owned the partition before.
CREATE TABLE partitions (
    "partition" INTEGER PRIMARY KEY,
    version     INTEGER NOT NULL,
    owner       TEXT NOT NULL
) STRICT;
