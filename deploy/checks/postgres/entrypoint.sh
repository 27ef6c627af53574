#!/bin/sh
# Makes the database on a server that listens on its socket only; then the server that everybody may reach.
set -eu

chmod 0700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl --options="-c listen_addresses=''" --wait start
    psql --username="$POSTGRES_USER" --dbname=postgres --command="CREATE DATABASE $POSTGRES_DB"
    pg_ctl --mode=fast --wait stop
fi
exec "$@"
