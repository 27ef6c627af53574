#!/bin/sh
# The entry of the image: `workflow-engine` with the arguments given. `serve` first waits for the database and brings it
# up to date, unless SKIP_MIGRATIONS says that somebody else does that; with SQLite there is nothing to wait for.
set -eu

wait_seconds=60

if [ "${1:-}" = serve ]; then
    case "${SKIP_MIGRATIONS:-false}" in
        false | False | FALSE | 0) workflow-engine migrate up --wait "$wait_seconds" ;;
        *) workflow-engine migrate status --wait "$wait_seconds" ;;
    esac
fi

exec workflow-engine "$@"
