-- What handlers declare beside their configuration: `output_schema` and `declared` (lane, timeouts, retries, limits)
-- are JSON text. Unset where they came from an older version.
ALTER TABLE handlers
    ADD COLUMN output_schema text,
    ADD COLUMN declared text;
