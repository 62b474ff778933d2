#!/usr/bin/env bash
# run.sh HUSK [TEST-ARGUMENTS...]: the integration tests, with real guests, wherever guests can run.
# Any further argument goes to the test runner: a name to filter by, --nocapture, ...
set -euo pipefail
husk=$1; shift
source "$(dirname "$0")/where.sh"
cd "$here"
program() { # PACKAGE NAME: builds that test program; where it is
    cargo test --release -p "$1" --test "$2" --locked --no-run --message-format=json | python3 -c 'import json,sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1]: print(message["executable"])' "$2"
}
tests=$(program husk-integration it)

# husk with points at which a test stops it. Without optimisation: what it is made from has been built so for other tests.
out=${CARGO_TARGET_DIR:-$here/target}/husk
cargo build -p husk --features fault-points --locked
objcopy --strip-debug "${out%/*}/$(uname -m)-unknown-linux-gnu/debug/husk" "$out/stopping"
integration/embed.sh "$out/stopping" "$kernel" "$out/initrd" "$out/husk-stopping"

# An agent that lies, and a guest that attacks.
cargo build --release -p husk-evil-agent -p husk-evil-guest --locked
evil=${out%/*}/$(uname -m)-unknown-linux-gnu/release

kinds="busybox debian work"
attempt() { # TEST-ARGUMENTS...: in one machine; the runner's exit status
    images $kinds || return
    inside bash "$here/integration/inside.sh" "$images" "$husk" "$tests" "$out/husk-stopping" "$evil/evil-agent" "$evil/evil-guest" -- --test-threads=1 "$@"
}
# What is no verdict on husk is run once more, on a new machine: all tests when the emulated machine itself died (125), and
# those that failed where a guest's kernel did in its own code. The emulator executes one boot in some thousand wrongly,
# each time seen while the kernel patched itself.
pass() {
    local status=0 log failed
    log=$(mktemp)
    attempt "$@" 2>&1 | tee "$log" || status=$?
    mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
    if [ "$status" = 125 ]; then
        echo "the emulated machine died: running its tests once more" >&2
        status=0
        attempt "$@" || status=$?
    elif [ -n "$emulated" ] && [ ${#failed[@]} -gt 0 ] && grep -qE 'its kernel said last: .*(BUG:|Oops:)' "$log"; then
        echo "a guest's kernel has failed: running what failed once more: ${failed[*]}" >&2
        status=0
        attempt --exact "${failed[@]}" || status=$?
    fi
    rm -f "$log"
    return "$status"
}

# The agent's own tests want a kernel with cgroup v2, root, and a root file system; a machine for guests has all three.
if [ $# -eq 0 ]; then
    agent=$(program husk-agent container)
    images $kinds
    inside bash "$here/integration/inside.sh" "$images" "$husk" "$agent" -- --test-threads=1
fi

# An emulated machine keeps one processor busy, and no more. Where there are two, and memory for it, two machines have half
# of the tests each: one test goes to the one, the next to the other.
available=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
if [ $# -gt 0 ] || [ -z "$emulated" ] || [ "$(nproc)" -lt 2 ] || [ "$available" -lt 14 ]; then
    pass "$@"
    exit
fi
for kind in $kinds; do integration/rootfs/make.sh "$kind" >/dev/null; done
integration/emulated/image.sh >/dev/null
mapfile -t all < <("$tests" --list --format terse | sed -n 's/: test$//p')
[ ${#all[@]} -gt 0 ] || { echo "the test program lists no test" >&2; exit 1; }
halves=([0]='' [1]='')
for at in "${!all[@]}"; do halves[at % 2]+="${all[at]} "; done
echo "two machines share ${#all[@]} tests; what the second says follows when both have ended" >&2
log=$(mktemp)
(name=$name-second; pass --exact ${halves[1]}) >"$log" 2>&1 & second=$!
# In the background nobody hears of an interrupt.
trap 'kill "$second" 2>/dev/null || true; rm -f "$log"' EXIT
status=0
(pass --exact ${halves[0]}) || status=$?
wait "$second" || status=$?
cat "$log"
exit "$status"
