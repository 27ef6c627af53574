#!/usr/bin/env bash
# `docker compose up` for real, on a Docker daemon of its own in a network of its own: started, scaled, used, a worker
# killed, stopped. Images of Debian's PostgreSQL and Redis take the places of those that docker-compose.yml names, so
# that nothing is pulled. Needs root, Docker Compose, and on Debian:
#   apt-get install --no-install-recommends buildah mmdebstrap iproute2 curl docker.io
# Takes about three minutes, and leaves nothing behind but what BASES asks for.
set -euo pipefail

here=$(dirname -- "${BASH_SOURCE[0]}")
# shellcheck source=common.sh
. "$here/common.sh"

export DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=0
# Others may be added to it, as Compose has it: COMPOSE_FILE=docker-compose.yml:more.yml
export COMPOSE_FILE=${COMPOSE_FILE:-$tree/docker-compose.yml}
daemon=
# Its own network and process ids: when its first process ends, everything in them does.
in_network() { nsenter --target "$(pgrep --parent "$daemon")" --net "$@"; }
compose() { docker-compose --project-name check "$@"; }

clean_up() {
    if [ -n "$daemon" ]; then
        kill -KILL "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    buildah rm --all >/dev/null 2>&1 || true
    rm -rf -- "$work"
}
trap clean_up EXIT

# shellcheck disable=SC2016  # the inner shell expands it
start_daemon() {
    unshare --net --mount --pid --fork --kill-child --mount-proc bash -c '
        ip link set lo up
        exec dockerd --data-root "$work/docker" --exec-root "$work/docker-exec" --pidfile "$work/docker.pid" \
            --host "$DOCKER_HOST" --iptables=false --ip-masq=false --ip-forward=false' >"$work/dockerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 100); do
        if docker version >/dev/null 2>&1; then return; fi
        kill -0 "$daemon" 2>/dev/null || fail "dockerd ended: $(tail "$work/dockerd.log")"
        sleep 0.2
    done
    fail "dockerd does not answer: $(tail "$work/dockerd.log")"
}

# Each stand-in under the name that the file has for it.
make_servers() {
    local name
    packages "$bases/servers.tar" postgresql-17 redis-server
    docker import "$bases/servers.tar" servers:local >/dev/null
    for name in postgres redis; do
        docker build --quiet --tag "$(compose config --format json | python3 -c "import json, sys
print(json.load(sys.stdin)['services']['$name']['image'])")" "$here/$name" >/dev/null
    done
}

# ports: those of this machine on which an API server answers.
ports() {
    docker ps --filter label=com.docker.compose.service=api --format '{{.Ports}}' | sed 's/.*:\([0-9]*\)->.*/\1/'
}

# run_one PORT...: submit on one API server, trigger on the next, wait on the third; whatever their number.
run_one() {
    local id results
    id=$(in_network curl -fsS -H 'Content-Type: application/json' --data "@$tree/examples/fan_out_fan_in.json" \
        "http://localhost:$1/v1/workflow" | sed 's/.*"execution_id": *"\([^"]*\)".*/\1/')
    in_network curl -fsS -X POST "http://localhost:${2:-$1}/v1/workflow/trigger/$id" >/dev/null
    results=$(in_network curl -fsS "http://localhost:${3:-$1}/v1/workflows/$id/results?wait=120")
    grep -q COMPLETED <<<"$results" || fail "the workflow did not complete: $results"
}

build_image
buildah push --quiet "$image" "docker-archive:$work/image.tar:$image:latest"
start_daemon
docker load --quiet --input "$work/image.tar"
make_servers

compose up --detach --wait --no-build || fail "$(compose logs --tail 20)"
[ "$(ports)" = 8000 ] || fail "the first API server is not on port 8000: $(ports)"
run_one 8000
in_network curl -fsS http://localhost:8000/v1/health
echo

compose up --detach --wait --no-build --scale api=3 --scale worker=3 || fail "$(compose logs --tail 20)"
mapfile -t three < <(ports)
[ "${#three[@]}" = 3 ] || fail "not three API servers: ${three[*]}"
for _ in $(seq 5); do run_one "${three[@]}"; done
runs=()
for _ in $(seq 10); do
    run_one "${three[@]}" &
    runs+=($!)
done
docker kill check-worker-2 >/dev/null
for run in "${runs[@]}"; do wait "$run" || fail "an execution did not survive the end of a worker"; done
compose ps --all

compose stop
codes=$(docker ps --all --format '{{.Names}} {{.Status}}' | grep -v worker-2)
if grep -v 'Exited (0)' <<<"$codes"; then fail "not all ended in order: $codes"; fi
echo "docker compose up starts it, it can be scaled, goes on without a worker, and stops"
