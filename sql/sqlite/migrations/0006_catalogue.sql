-- The handlers that processes have, for those that have others. `config_schema` is JSON text.

CREATE TABLE handlers (
    name          TEXT PRIMARY KEY,
    description   TEXT NOT NULL,
    config_schema TEXT,
    distribution  TEXT,
    version       TEXT,
    seen_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
