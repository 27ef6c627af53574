#!/usr/bin/env bash
# Builds the Dockerfile and runs the image, without a container daemon: with buildah, on a base of Debian's packages that
# takes the place of the one which FROM names. Needs root, and on Debian: apt-get install buildah mmdebstrap iproute2 curl
# Takes a minute or two, and leaves nothing behind but what BASES asks for.
set -euo pipefail

# shellcheck source=common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

clean_up() {
    buildah rm --all >/dev/null 2>&1 || true
    rm -rf -- "$work"
}
trap clean_up EXIT

# In a network of its own, where the port is free and nothing outside can be reached.
run_it() {
    local container pid id results
    ip link set lo up
    container=$(buildah from --pull-never "$image")
    inside() { buildah run "$container" -- "$@"; }

    [ "$(inside id -u):$(inside id -g)" = 10001:10001 ] || fail "not the user that the Dockerfile says"
    if inside touch /opt/workflow-engine/x 2>/dev/null; then fail "the user may change the program"; fi
    if inside sh -c 'command -v cc gcc make' >/dev/null 2>&1; then fail "build tools are in the image"; fi
    if inside python -m pip --version >/dev/null 2>&1; then fail "pip is in the image's environment"; fi

    local entry=()
    mapfile -t entry < <(buildah inspect --format \
        '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' \
        "$container" | sed '/^$/d')
    echo "the image's command: ${entry[*]}"
    # shellcheck disable=SC2016  # the shell of the container expands it
    buildah run --env DEMO_MODE=true --env API_KEYS_REQUIRED=false "$container" -- \
        sh -c 'echo $$ >/tmp/pid; exec "$@"' sh "${entry[@]}" >"$work/serve.log" 2>&1 &
    local serving=$!
    until_answered http://127.0.0.1:8000/livez "$serving" "$work/serve.log"
    curl -fsS http://127.0.0.1:8000/readyz

    local health=()
    mapfile -t health < <(buildah inspect --format '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' \
        "$container" | sed '/^$/d')
    [ "${health[0]}" = CMD ] || fail "no health check: ${health[*]}"
    inside "${health[@]:1}" || fail "its health check says that it is not well"

    id=$(curl -fsS -H 'Content-Type: application/json' --data "@$tree/examples/fan_out_fan_in.json" \
        http://127.0.0.1:8000/v1/workflow | sed 's/.*"execution_id": *"\([^"]*\)".*/\1/')
    curl -fsS -X POST "http://127.0.0.1:8000/v1/workflow/trigger/$id"
    results=$(curl -fsS "http://127.0.0.1:8000/v1/workflows/$id/results?wait=60")
    grep -q COMPLETED <<<"$results" || fail "the workflow did not complete: $results"
    printf '\n%s\n' "$results"

    pid=$(inside cat /tmp/pid)
    [ "$(ps -o uid= -p "$pid" | tr -d ' ')" = 10001 ] || fail "it runs as another user"
    kill -TERM "$pid"
    wait "$serving" || fail "it ended with $? after SIGTERM: $(cat "$work/serve.log")"
    cat "$work/serve.log"
    if inside "${health[@]:1}" 2>/dev/null; then fail "its health check takes nobody for well"; fi
}

build_image
export -f buildah fail run_it until_answered
# When its first process ends, whatever it has started does.
unshare --net --mount --pid --fork --kill-child --mount-proc bash -euo pipefail -c run_it
buildah images
echo "the image is built, runs and stops"
