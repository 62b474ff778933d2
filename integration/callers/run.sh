#!/usr/bin/env bash
# run.sh HUSK SHIM [quick|all]: Docker and Podman with husk, wherever guests can run, on a machine that has run nothing else.
# `quick` (the default) is a selection for every day; `all`, or HUSK_FULL=1, is everything they are shown to do. SUITE=forky
# takes the emulated machine's Docker and Podman from that Debian suite, so newer ones than trixie's.
set -euo pipefail
husk=$1 shim=$2 which=${3:-quick}
[ -z "${HUSK_FULL:-}" ] || which=all
source "$(dirname "$0")/../where.sh"
images busybox
status=0
for caller in docker podman; do
    if ! inside sh -c "command -v $caller >/dev/null"; then
        echo "skipped: $caller is not installed where guests run" >&2
        continue
    fi
    programs=("$husk")
    [ $caller = podman ] || programs+=("$shim")
    names=()
    [ "$which" = all ] || names=("$which")
    inside bash "$here/integration/callers/$caller.sh" "${programs[@]}" "$images/busybox" "${names[@]}" || status=1
done
exit "$status"
