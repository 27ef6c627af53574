# shellcheck shell=bash
# What the checks share: a folder of their own, a base image made of Debian's packages, and the image built on it.

# shellcheck disable=SC2034  # used by those who read this file
tree=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
image=workflow-engine
# Kept for the next time in the folder that BASES names; made anew without it.
bases=${BASES:-$work}
export BUILDAH_ISOLATION=chroot tree work image

buildah() { command buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }

fail() {
    printf 'FAILED: %s\n' "$1" >&2
    exit 1
}

# packages FILE PACKAGE...: Debian's packages as the files of an image.
packages() {
    local file=$1
    shift
    if [ ! -e "$file" ]; then
        mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "$*")" trixie "$file"
    fi
}

# In the place of the image that FROM names.
make_base() {
    local from container
    from=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' "$tree/Dockerfile" | sort -u)
    [ "$(wc -l <<<"$from")" = 1 ] || fail "the Dockerfile has more than one base: $from"
    packages "$bases/python.tar" python3 python3-venv python3-pip python-is-python3 ca-certificates
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$bases/python.tar" / >/dev/null
    buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin "$container"
    buildah commit --quiet "$container" "localhost/$from" >/dev/null
    buildah rm "$container" >/dev/null
}

# With this machine's certificates, so that an index behind a proxy of its own is trusted.
build_image() {
    make_base
    buildah bud --pull-never --format docker --volume /etc/ssl/certs:/etc/ssl/certs:ro \
        ${PIP_INDEX_URL:+--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL"} --tag "$image" "$tree"
}

# until_answered URL PROCESS LOG: wait until somebody answers there; fail when the process ends before.
until_answered() {
    for _ in $(seq 150); do
        if curl -fsS "$1" 2>/dev/null; then return; fi
        kill -0 "$2" 2>/dev/null || fail "it ended: $(cat "$3")"
        sleep 0.2
    done
    fail "nobody answers at $1: $(cat "$3")"
}
