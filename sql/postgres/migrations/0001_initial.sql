-- The first schema. Times are milliseconds since the epoch; payloads and errors are JSON text as bytes: a type that
-- can refuse them (a NUL, a lone surrogate, depth) would refuse an outcome. Identifiers compare byte by byte.

CREATE TABLE definitions (
    definition_id text COLLATE "C" PRIMARY KEY,
    name          text COLLATE "C" NOT NULL,
    version       bigint NOT NULL,
    digest        text COLLATE "C" NOT NULL,
    body          bytea NOT NULL,
    created_at    bigint NOT NULL,
    UNIQUE (name, version),
    UNIQUE (name, digest)
);

-- The state of an execution is the fold of its attempts and commands; the row holds it for those who look.
CREATE TABLE executions (
    execution_id  text COLLATE "C" PRIMARY KEY,
    definition_id text COLLATE "C" NOT NULL,
    name          text COLLATE "C" NOT NULL,
    partition     integer NOT NULL,
    state         text COLLATE "C" NOT NULL CHECK (state IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
    input_text    bytea,
    error         bytea,
    created_at    bigint NOT NULL,
    started_at    bigint,
    completed_at  bigint,
    parked_until  bigint
) WITH (fillfactor = 80);

-- What an owner looks for: only what is in flight is in this index, however much is finished.
CREATE INDEX executions_in_flight ON executions (partition, parked_until, execution_id) WHERE state = 'RUNNING';
CREATE INDEX executions_by_state ON executions (state, execution_id);
CREATE INDEX executions_by_name ON executions (name, state, execution_id);

-- One row for each attempt that ended, inserted once. The key is what makes an outcome count once.
CREATE TABLE attempts (
    execution_id text COLLATE "C" NOT NULL,
    node_id      text COLLATE "C" NOT NULL,
    attempt      bigint NOT NULL,
    sequence     bigint NOT NULL,
    state        text COLLATE "C" NOT NULL CHECK (state IN ('COMPLETED', 'FAILED', 'CANCELLED')),
    output       bytea,
    error        bytea,
    started_at   bigint,
    finished_at  bigint NOT NULL,
    retry_at     bigint,
    PRIMARY KEY (execution_id, node_id, attempt)
);

-- Cancels. `sequence` is the place in the execution's history of one that had an effect.
CREATE TABLE commands (
    command_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    execution_id text COLLATE "C" NOT NULL,
    created_at   bigint NOT NULL,
    consumed     boolean NOT NULL DEFAULT false,
    sequence     bigint
);

CREATE INDEX commands_of_execution ON commands (execution_id);
CREATE INDEX commands_unconsumed ON commands (execution_id) WHERE NOT consumed;

-- Every commit and every taking raises the version: it fences off whoever owned the partition before. The lease only
-- lets others take it when it has run out, by this server's clock.
CREATE TABLE partitions (
    partition  integer PRIMARY KEY,
    version    bigint NOT NULL DEFAULT 0,
    owner      text NOT NULL DEFAULT '',
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);

-- The live orchestrators: what a fair share is reckoned from.
CREATE TABLE replicas (
    replica_id text COLLATE "C" PRIMARY KEY,
    expires_at timestamptz NOT NULL
);

-- What was answered to a request under an idempotency key. Claims are independent of their executions' lives.
CREATE TABLE idempotency_claims (
    claim_key     text COLLATE "C" PRIMARY KEY,
    fingerprint   text NOT NULL,
    execution_id  text NOT NULL,
    definition_id text NOT NULL,
    created_at    bigint NOT NULL
);

CREATE INDEX idempotency_claims_by_age ON idempotency_claims (created_at);

-- API keys: only the SHA-256 of a key's text is here.
CREATE TABLE api_keys (
    key_id     text COLLATE "C" PRIMARY KEY,
    name       text NOT NULL,
    digest     text COLLATE "C" NOT NULL UNIQUE,
    scopes     text[] NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint
);
