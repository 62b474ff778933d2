#!/usr/bin/env bash
# run.sh HUSK SHIM [quick|all|bench [ROUNDS]]: Docker, Podman, containerd and Kubernetes' pods with husk, wherever guests can
# run, on a machine that has run nothing else. `quick` (the default) is a selection for every day; `all`, or HUSK_FULL=1, is
# everything they are shown to do; `bench`, of pods alone, measures. SUITE=forky takes the emulated machine's programs from
# that Debian suite, so newer ones than trixie's. ONLY names some of the four.
set -euo pipefail
husk=$1 shim=$2 which=${3:-quick}
[ -z "${HUSK_FULL:-}" ] || which=all
source "$(dirname "$0")/../where.sh"
cd "$here"
cri=$(cargo build --release -p husk-integration --bin cri --locked --message-format=json |
    python3 -c 'import json,sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable"): print(message["executable"])')
images busybox
status=0
for caller in ${ONLY:-docker podman containerd pods}; do
    program=$caller
    [ $caller != pods ] || program=containerd
    if ! inside sh -c "command -v $program >/dev/null"; then
        echo "skipped: $program is not installed where guests run" >&2
        continue
    fi
    programs=("$husk" "$shim")
    [ $caller != podman ] || programs=("$husk")
    [ $caller != pods ] || programs+=("$cri")
    names=()
    [ "$which" = all ] || names=("$which" ${4+"$4"})
    inside bash "$here/integration/callers/$caller.sh" "${programs[@]}" "$images/busybox" "${names[@]}" || status=1
done
exit "$status"
