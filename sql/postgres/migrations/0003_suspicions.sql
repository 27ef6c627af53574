-- How many deliveries of an attempt were lost with whoever ran it, stored before the next one is made.
CREATE TABLE suspicions (
    execution_id    text COLLATE "C" NOT NULL,
    node_id         text COLLATE "C" NOT NULL,
    attempt         bigint NOT NULL,
    lost_deliveries bigint NOT NULL,
    PRIMARY KEY (execution_id, node_id, attempt)
);
