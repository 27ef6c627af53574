-- The handlers that processes have, for those that have others. `config_schema` is JSON text.

CREATE TABLE handlers (
    name          text COLLATE "C" PRIMARY KEY,
    description   text NOT NULL,
    config_schema text,
    distribution  text,
    version       text,
    seen_at       bigint NOT NULL
);
