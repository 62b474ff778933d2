#!/usr/bin/env bash
# containerd.sh HUSK SHIM BUSYBOX [SCENARIO...]: containerd with runc's shim first and with husk's after it: the same calls, and
# what came of them compared.
#   HUSK SHIM  the programs under test
#   BUSYBOX    an unpacked root filesystem, of which the image is made
#   SCENARIO   names (all by default); `quick` is a selection
#   KEEP       what runc did the last time is taken for what it does
#   STOCK      also runc's shim with husk as its program
#   HUSK_FULL  more tasks where many are wanted
# Runs as root on a machine whose KVM runs guests, with a daemon of its own in a state of its own (see state.sh).
set -uo pipefail
all="run stdin tty life created logger memory wrong crash restart"
quick="everyday"
caller=containerd
source "$(dirname "$0")/state.sh"
husk=$1 shim=$2 image=$3; shift 3
case ${1-} in '') set -- $all ;; quick) set -- $quick ;; esac
export CONTAINERD_ADDRESS=$work/state/containerd.sock CONTAINERD_NAMESPACE=callers
mkdir -p "$work"/results/{husk,stock}
kept=$work/results/runc
[ -z "${KEEP:-}" ] || kept=/var/tmp/husk-callers-kept/containerd
mkdir -p "$kept"
install "$husk" "$work/bin/husk"
install "$shim" "$work/bin/containerd-shim-husk-v2"
: >"$work/figures"
failures=0
AT_ONCE=$([ -z "${HUSK_EMULATED-}" ] && echo 2000 || echo 8000) # milliseconds

# --- the daemon -----------------------------------------------------------------------------------------------------
up() {
    containerd --root "$work/root" --state "$work/state" --address "$CONTAINERD_ADDRESS" --log-level info \
        >>"$work/containerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do ctr version >/dev/null 2>&1 && return; sleep 0.1; done
    tail "$work/containerd.log"; exit 1
}
down() { kill "$daemon"; wait "$daemon" 2>/dev/null || true; }
trap 'kill -9 $daemon 2>/dev/null; exit 1' INT TERM

# What a registry would have sent: one layer, in the form that `docker save` has.
import() {
    mkdir -p "$work/image"
    tar -C "$image" -cf "$work/image/layer.tar" .
    local digest; digest=$(sha256sum <"$work/image/layer.tar" | cut -d' ' -f1)
    cat >"$work/image/config.json" <<-END
	{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin:/sbin:/usr/bin:/usr/sbin"]},
	 "rootfs":{"type":"layers","diff_ids":["sha256:$digest"]}}
	END
    echo '[{"Config":"config.json","RepoTags":["test/busybox:1"],"Layers":["layer.tar"]}]' >"$work/image/manifest.json"
    tar -C "$work/image" -cf "$work/image.tar" manifest.json config.json layer.tar
    ctr image import "$work/image.tar" >/dev/null
    name=$(ctr image ls -q | head -1)
}

# --- telling --------------------------------------------------------------------------------------------------------
# Runs a command and tells its status, output and errors, without what differs by its nature: pids, times, sizes.
tell() {
    local what=$1 status=0; shift
    # Not with SIGTERM, which ctr passes on to the container.
    timeout -s KILL 120 "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
    said "$what" "$status"
}
said() { # WHAT STATUS
    echo "$1: status $2"
    sed 's/^/  out: /' "$work/out" | normal
    # The words of an error are each runtime's own; its code is containerd's.
    sed -n 's/.*: \(not found\|already exists\)\( .*\)\?$/  err: \1/p' "$work/err"
    cat "$work/err" >>"$work/errors-$runtime"
}
normal() { sed "s/$runtime-/X-/g"; }
started() { # ID: until its program has said so
    for _ in $(seq 600); do grep -q ready "$work/log-$1" 2>/dev/null && return; sleep 0.1; done
    echo "$1 did not get ready"
}
background() { # ID SCRIPT [OPTIONS...]: runs until it is killed
    local id=$1 script=$2; shift 2
    $run -d --log-uri "file://$work/log-$id" "$@" "$name" "$id" sh -c "$script" </dev/null >"$work/out" 2>"$work/err" || { cat "$work/err"; return; }
    started "$id"
}
status_of() { ctr task ls | awk -v id="$1" '$1 == id { print $3 }'; }
becomes() { # ID STATUS
    local until=$((SECONDS + 120))
    while [ $SECONDS -lt $until ]; do
        [ "$(status_of "$1")" = "$2" ] && { echo "becomes $2"; return; }
        sleep 0.1
    done
    echo "is $(status_of "$1") and not $2"
}
end() { # ID
    ctr task kill -s KILL "$1" 2>/dev/null || true
    [ -z "$(status_of "$1")" ] || becomes "$1" STOPPED >/dev/null
    ctr task delete "$1" >/dev/null 2>&1 || true
    ctr container delete "$1" 2>/dev/null || true
}
READY='echo ready; while :; do sleep 1; done'

# --- scenarios ------------------------------------------------------------------------------------------------------
s_run() {
    tell "echo" $run --rm "$name" "$runtime-run" echo hello world
    tell "status" $run --rm "$name" "$runtime-run" sh -c 'echo out; echo err >&2; exit 42'
    tell "signal" $run --rm "$name" "$runtime-run" sh -c 'kill -9 $$'
    tell "environment" $run --rm --env A=b --cwd /bin "$name" "$runtime-run" sh -c 'echo $A $PWD; id -u'
    tell "not a program" $run --rm "$name" "$runtime-run" /no/such/program
    tell "long" $run --rm "$name" "$runtime-run" sh -c 'seq 1 20000 | md5sum; seq 1 20000 | tail -n 2'
}
s_stdin() {
    local status=0 id=$runtime-stdin
    background "$id" "$READY"
    seq 1 5000 | timeout -s KILL 60 ctr task exec --exec-id in "$id" sh -c 'md5sum; echo end' >"$work/out" 2>"$work/err" || status=$?
    said "stdin to its end" "$status"
    end "$id"
}
s_tty() {
    local status=0
    script -qec "stty rows 31 cols 97; $run --rm -t $name $runtime-tty sh -c 'tty; sleep 2; stty size; exit 3'" /dev/null \
        >"$work/out" 2>"$work/err" </dev/null || status=$?
    tr -d '\r' <"$work/out" >"$work/out2"; mv "$work/out2" "$work/out"
    said "a terminal" "$status"
}
s_life() {
    local id=$runtime-life
    background "$id" "$READY"
    echo "is $(status_of "$id")"
    tell "again" ctr task start "$id"
    tell "exec" ctr task exec --exec-id one "$id" sh -c 'echo inside; echo error >&2; exit 7'
    tell "exec by user" ctr task exec --exec-id two --user 1000 "$id" id -u
    tell "exec of nothing" ctr task exec --exec-id three "$id" /no/such/program
    ctr task exec -d --exec-id four --log-uri "file://$work/log-four" "$id" sh -c "$READY" </dev/null >/dev/null 2>&1
    tell "exec with a name that is taken" ctr task exec --exec-id four "$id" true
    ctr task ps "$id" | awk 'NR > 1 { print "process", $2 }' | sort -u
    tell "kill exec" ctr task kill -s KILL --exec-id four "$id"
    tell "pause" ctr task pause "$id"
    echo "is $(status_of "$id")"
    tell "exec while paused" ctr task exec --exec-id five "$id" true
    tell "resume" ctr task resume "$id"
    echo "is $(status_of "$id")"
    ctr task metrics "$id" | awk 'NR > 3 { print "metric", $1 }' | grep -E 'memory.usage_in_bytes|memory.usage|cpuacct.usage|cpu.usage|pids' | sort -u || true
    tell "delete while it runs" ctr task delete "$id"
    tell "term" ctr task kill -s TERM "$id"
    tell "kill" ctr task kill -s KILL "$id"
    becomes "$id" STOPPED
    tell "kill after its end" ctr task kill -s KILL "$id"
    tell "exec after its end" ctr task exec --exec-id six "$id" true
    tell "delete" ctr task delete "$id"
    tell "kill after delete" ctr task kill "$id"
    tell "container" ctr container delete "$id"
}
s_created() {
    local id=$runtime-created
    tell "create" ctr container create --runtime "$type" $binary "$name" "$id" sh -c 'exit 5'
    tell "start" ctr task start "$id"
    tell "container" ctr container delete "$id"
}
s_logger() {
    local id=$runtime-logger
    cat >"$work/logger" <<-END
	#!/bin/sh
	# runc's shim ends it as soon as the container has ended.
	trap '' TERM
	exec 5>&-
	{ echo "\$1 \$2 \$CONTAINER_NAMESPACE"; cat <&3; cat <&4; echo over; } >"$work/logged"
	END
    chmod +x "$work/logger"
    $run -d --log-uri "binary://$work/logger?one=two" "$name" "$id" sh -c 'echo out; echo err >&2; exit 9' </dev/null
    becomes "$id" STOPPED
    tell "delete" ctr task delete "$id"
    cat "$work/logged"
    ctr container delete "$id"
}
s_memory() {
    local id=$runtime-memory
    $run -d --log-uri "file://$work/log-$id" --memory-limit $((64 << 20)) "$name" "$id" \
        sh -c 'tail /dev/zero; echo killed $?; exit 6' </dev/null
    becomes "$id" STOPPED
    tell "delete" ctr task delete "$id"
    cat "$work/log-$id"
    ctr container delete "$id"
}
# containerd ends under its containers and comes back: they live and are reached again, and what they print goes on; one that
# ended meanwhile is told, and taken away by containerd itself.
s_restart() {
    local n count=3 before
    [ -z "${HUSK_FULL:-}" ] || count=20
    for n in $(seq $count); do
        background "$runtime-r$n" 'echo ready; while :; do echo line; sleep 0.5; done'
    done
    background "$runtime-gone" "echo ready; sleep 3; exit 33"
    kill -9 "$daemon"; wait "$daemon" 2>/dev/null || true
    sleep 6
    up
    for n in $(seq $count); do
        before=$(wc -l <"$work/log-$runtime-r$n")
        echo "$n is $(status_of "$runtime-r$n")"
        grows "$work/log-$runtime-r$n" "$before"
        tell "exec" ctr task exec --exec-id one "$runtime-r$n" echo here
    done
    becomes "$runtime-gone" ""
    tell "kill" ctr task kill -s KILL "$runtime-r1"
    becomes "$runtime-r1" STOPPED
    for n in $(seq $count); do end "$runtime-r$n"; done
    end "$runtime-gone"
}
grows() { # FILE LINES
    local until=$((SECONDS + 20))
    while [ $SECONDS -lt $until ]; do
        [ "$(wc -l <"$1")" -le "$2" ] || { echo "goes on"; return; }
        sleep 0.1
    done
    echo "printed nothing after line $2"
}
# What makes no sense is refused with the code that containerd's clients act on.
s_wrong() {
    local id=$runtime-wrong
    tell "kill of nothing" ctr task kill "$id"
    tell "exec in nothing" ctr task exec --exec-id one "$id" true
    tell "start of nothing" ctr task start "$id"
    background "$id" "$READY"
    tell "a name that is taken" $run --rm "$name" "$id" true
    tell "a signal that is none" ctr task kill -s 99 "$id"
    tell "kill of an exec that is not there" ctr task kill --exec-id none "$id"
    rm -r "$work/state/io.containerd.runtime.v2.task/$CONTAINERD_NAMESPACE/$id/config.json"
    echo "is $(status_of "$id") without its bundle's configuration"
    tell "kill" ctr task kill -s KILL "$id"
    becomes "$id" STOPPED
    tell "delete" ctr task delete "$id"
    tell "container" ctr container delete "$id"
}
# A shim that is killed takes its container with it.
s_crash() {
    local id=$runtime-crash before pid shim gone
    background "$id" "$READY"
    pid=$(ctr task ls | awk -v id="$id" '$1 == id { print $2 }')
    shim=$(pgrep -f "containerd-shim.* -id $id( |\$)" | head -1)
    echo "$runtime: the shim's own memory is $(awk '/^Pss:/ { print $2 }' "/proc/$shim/smaps_rollup") KiB, in $(ls "/proc/$shim/task" | wc -l) threads" >>"$work/figures"
    touch -d '1 minute ago' "$work/before"
    before=$(date +%s%N)
    kill -9 "$shim"
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -0 "$pid" 2>/dev/null && echo "its process lives on"
    gone=$((($(date +%s%N) - before) / 1000000))
    [ $gone -lt $AT_ONCE ] || [ "$runtime" = runc ] || echo "gone after $gone ms only"
    echo "$runtime: gone $gone ms after its shim was killed" >>"$work/figures"
    ctr task delete "$id" >/dev/null 2>&1 || true
    ctr container delete "$id"
    # runc's shim leaves its socket then.
    [ "$runtime" = husk ] || find /run/containerd/s -type s -newer "$work/before" -delete
}

# A little of everything, in as few steps as show it: what `make test` does.
s_everyday() {
    local id=$runtime-every
    tell "run" $run --rm --env A=b --cwd /bin "$name" "$runtime-run" sh -c 'echo $A $PWD; echo err >&2; exit 42'
    background "$id" 'echo ready; trap "echo term; exit 5" TERM; while :; do sleep 0.1; done'
    seq 1 5000 | timeout -s KILL 60 ctr task exec --exec-id in "$id" sh -c 'md5sum; exit 7' >"$work/out" 2>"$work/err"
    said "exec" $?
    tell "pause" ctr task pause "$id"
    echo "is $(status_of "$id")"
    tell "resume" ctr task resume "$id"
    ctr task metrics "$id" | awk 'NR > 3 { print "metric", $1 }' | grep -xE 'metric (memory.usage_in_bytes|memory.usage|pids.current)'
    kill -9 "$daemon"; wait "$daemon" 2>/dev/null || true
    up
    echo "is $(status_of "$id") with a new containerd"
    tell "term" ctr task kill -s TERM "$id"
    becomes "$id" STOPPED
    cat "$work/log-$id"
    tell "delete" ctr task delete "$id"
    tell "container" ctr container delete "$id"
}

# --- what exists ----------------------------------------------------------------------------------------------------
census() {
    ps -eo comm= | grep -E '^(containerd-shim|husk:?.*)$' || true
    mount | grep -F "$work/state" || true
    ls "$work/state/io.containerd.runtime.v2.task/$CONTAINERD_NAMESPACE" /run/containerd/s \
        "/run/containerd/husk/$CONTAINERD_NAMESPACE" "/run/containerd/runc/$CONTAINERD_NAMESPACE" 2>/dev/null | grep -v '^/' | grep . || true
    find /sys/fs/cgroup -path "*/$CONTAINERD_NAMESPACE/*" -type d 2>/dev/null || true
}

# Topics in order, for each container by itself: those of several at once may interleave.
topics() {
    sed -nE 's/.* (\/tasks\/[a-z-]+) (\{.*)/\1 \2/p' "$work/events" |
        jq -Rr 'capture("(?<t>[^ ]+) (?<j>.*)") | (.j | fromjson) as $e | "\($e.container_id) \(.t) \($e.id // $e.exec_id // "" )"' |
        sort -s -k1,1
}

one() { # SCENARIO
    local listener before; before=$(census)
    echo "== $1"
    ctr events >"$work/events" & listener=$!
    "s_$1"
    sleep 1
    kill "$listener" 2>/dev/null; wait "$listener" 2>/dev/null
    echo "== events"; topics
    echo "== left"; diff <(echo "$before") <(census)
}

up
import
for scenario; do
    for runtime in runc husk ${STOCK:+stock}; do
        result=$work/results/$runtime/$scenario
        [ $runtime = runc ] && result=$kept/$scenario
        [ $runtime = runc ] && [ -n "${KEEP:-}" ] && [ -s "$result" ] && continue
        case $runtime in
        stock) type=io.containerd.runc.v2 binary="--runc-binary $work/bin/husk" ;;
        *) type=io.containerd.$runtime.v2 binary= ;;
        esac
        run="ctr run --runtime $type $binary" since=$SECONDS
        one $scenario >"$result.raw" 2>&1
        normal <"$result.raw" >"$result"; rm "$result.raw"
        echo "$scenario with $runtime: $((SECONDS - since)) s"
    done
    for runtime in husk ${STOCK:+stock}; do
        diff -u "$kept/$scenario" "$work/results/$runtime/$scenario" || failures=$((failures + 1))
    done
done
down
cat "$work/figures"
echo "containerd: $failures scenarios differ between runc's shim and husk's"
[ $failures = 0 ]
