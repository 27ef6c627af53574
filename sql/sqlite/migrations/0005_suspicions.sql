-- How many deliveries of an attempt were lost with whoever ran it, stored before the next one is made.
CREATE TABLE suspicions (
    execution_id    TEXT NOT NULL,
    node_id         TEXT NOT NULL,
    attempt         INTEGER NOT NULL,
    lost_deliveries INTEGER NOT NULL,
    PRIMARY KEY (execution_id, node_id, attempt)
) STRICT, WITHOUT ROWID;
