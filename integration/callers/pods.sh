#!/usr/bin/env bash
# pods.sh HUSK SHIM CRI BUSYBOX [SCENARIO...]: Kubernetes' pods as containerd makes them, with runc first, then with husk: the same
# calls of the container runtime interface, and what came of them compared.
#   HUSK SHIM  the programs under test
#   CRI        plays the kubelet (integration/src/bin/cri)
#   BUSYBOX    an unpacked root filesystem, of which the images are made
#   SCENARIO   names (all by default); `quick` is a selection; `bench [ROUNDS]` measures instead (pods-bench.sh)
#   RUNTIMES   of: husk (its shim), stock (runc's shim with husk as its program), sandbox (husk's shim, whose sandboxes need no
#              pause image; containerd 2 alone); all that there are by default
#   KEEP       what runc did the last time is taken for what it does
#   HUSK_FULL  100 pods instead of 10 where many are wanted
# Runs as root on a machine whose KVM runs guests, with a daemon of its own in a state of its own (see state.sh).
set -uo pipefail
all="life shared network limits streams restart crash many"
quick="everyday"
caller=pods
source "$(dirname "$0")/state.sh"
husk=$1 shim=$2 cri=$3 image=$4; shift 4
version=$(containerd --version | sed -E 's/.* v?([0-9]+)\..*/\1/')
runtimes="husk stock"
[ "$version" = 1 ] || runtimes+=" sandbox"
case ${1-} in
'') set -- $all ;;
quick) set -- $quick; runtimes=husk ;;
esac
mkdir -p "$work"/{logs,cni,results,volume}
kept=$work/results
[ -z "${KEEP:-}" ] || kept=/var/tmp/husk-callers-kept/pods
mkdir -p "$kept"
install "$husk" "$work/bin/husk"
install "$shim" "$work/bin/containerd-shim-husk-v2"
install "$cri" "$work/bin/cri"
socket=$work/state/containerd.sock
failures=0
AT_ONCE=$([ -z "${HUSK_EMULATED-}" ] && echo 2000 || echo 8000) # milliseconds
: >"$work/figures"

cat >"$work/config.toml" <<END
version = 2
root = "$work/root"
state = "$work/state"
[grpc]
  address = "$socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/test/pause:1"
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$work/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.stock]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.stock.options]
        BinaryName = "$work/bin/husk"
END
cat "$here/../../docs/kubernetes/containerd.toml" >>"$work/config.toml"
[ "$version" = 1 ] || cat >>"$work/config.toml" <<'END'
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.sandbox]
  runtime_type = "io.containerd.husk.v2"
  sandboxer = "shim"
END
cat >"$work/cni/10-pods.conflist" <<'END'
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.98.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}},
  {"type": "loopback"}]}
END

# --- the daemon -----------------------------------------------------------------------------------------------------
up() {
    # Not this shell's own: its end is nothing to be told.
    (containerd --config "$work/config.toml" >>"$work/containerd.log" 2>&1 & echo $! >"$work/daemon")
    for _ in $(seq 300); do call ready >/dev/null 2>&1 && return; sleep 0.1; done
    tail "$work/containerd.log"; exit 1
}
down() { # SIGNAL
    local daemon; daemon=$(cat "$work/daemon")
    kill -s "$1" "$daemon"
    while kill -0 "$daemon" 2>/dev/null; do sleep 0.1; done
}
call() { cri "$socket" "$@"; }
trap 'down KILL; exit 1' INT TERM

# What a registry would have sent, in the form that `docker save` has: one layer, and what runs if nothing else is said.
import() { # NAME COMMAND
    local digest
    [ -s "$work/layer.tar" ] || tar -C "$image" -cf "$work/layer.tar" .
    digest=$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
    cat >"$work/config.json" <<-END
	{"architecture":"amd64","os":"linux","config":{"Cmd":$2,"Env":["PATH=/bin:/sbin:/usr/bin:/usr/sbin"]},
	 "rootfs":{"type":"layers","diff_ids":["sha256:$digest"]}}
	END
    echo "[{\"Config\":\"config.json\",\"RepoTags\":[\"$1\"],\"Layers\":[\"layer.tar\"]}]" >"$work/manifest.json"
    tar -C "$work" -cf - manifest.json config.json layer.tar | ctr -a "$socket" -n k8s.io image import - >/dev/null
}

# --- telling --------------------------------------------------------------------------------------------------------
normal() { sed -E "s/$runtime-/X-/g; s/10\.98\.0\.[0-9]+/ADDRESS/g"; }
pod() { # NAME [OPTIONS...]: into $pod
    pod_name=$runtime-$1; shift
    pod=$(call run-pod "$runtime" "$pod_name" "$@") || { echo "no pod"; exit 1; }
}
new() { # NAME [OPTIONS...] -- COMMAND...: into $id, started
    made=$1; shift
    id=$(call create "$pod" "$pod_name" "$made" docker.io/test/busybox:1 "$@") || { echo "not made"; return; }
    call start "$id" || echo "not started"
}
printed() { sed -E 's/^[^ ]+ (stdout|stderr) [FP] ?//' "$work/logs/$1.log" 2>/dev/null; }
becomes() { # ID STATE
    local until=$((SECONDS + 120))
    while [ $SECONDS -lt $until ]; do case $(call status "$1") in "$2"*) call status "$1"; return;; esac; sleep 0.1; done
    echo "does not become $2: $(call status "$1")"
}
says() { # NAME WORD: waits until the container has printed it
    local until=$((SECONDS + 60))
    while [ $SECONDS -lt $until ]; do printed "$1" | grep -q "$2" && return; sleep 0.1; done
    echo "$1 does not say $2"
}
counted='{ print ($1 > 0 && $2 > 0) ? "counted" : "not counted: " $0 }' # of processor time and memory
address() { call pod-status "$1" | cut -d' ' -f2; }
end() { call stop-pod "$pod" && call remove-pod "$pod"; }

# --- scenarios ------------------------------------------------------------------------------------------------------
s_life() {
    pod life
    call pod-status "$pod"
    new first -- sh -c 'echo begun; trap "echo told; exit 4" TERM; while :; do sleep 0.1; done'
    first=$id
    call status "$first"
    figure
    call exec "$first" sh -c 'hostname; id -u; echo error >&2; exit 3' 2>&1
    new second -- sh -c 'echo out; echo err >&2; exit 7'
    becomes "$id" exited
    printed second | sort
    call stats "$first" | awk "$counted"
    call pod-stats "$pod" | awk "$counted"
    call stop "$first"
    becomes "$first" exited
    printed first
    call remove "$first"
    # Again, in the pod that lives on.
    new third -- sh -c 'echo third; sleep 1000'
    call exec "$id" echo inside
    call exec "$id" no-such-program 2>&1 | grep -o 'executable file not found in \$PATH' | head -1
    call stop-pod "$pod"
    call pod-status "$pod" | cut -d' ' -f1,2
    call status "$id" | cut -d' ' -f1,2
    call remove-pod "$pod"
}
s_shared() {
    echo outside >"$work/volume/file"
    pod shared
    new writer --mount "$work/volume:/volume" -- sh -c 'echo hello >/volume/from-writer; echo kept >/dev/shm/kept; while :; do echo served | nc -l -p 8080; done'
    writer=$id
    new reader --mount "$work/volume:/volume:ro" -- sleep 1000
    until=$((SECONDS + 20)); while [ $SECONDS -lt $until ] && ! [ -s "$work/volume/from-writer" ]; do sleep 0.1; done
    call exec "$id" sh -c 'cat /volume/from-writer /volume/file /dev/shm/kept; nc 127.0.0.1 8080 </dev/null; echo x >/volume/no' 2>&1 | sed 's/^sh: .*: //'
    call exec "$id" sh -c 'set -- /proc/[0-9]*; echo $#'
    new among --pid pod -- sleep 4242
    call exec "$id" sh -c 'cat /proc/[0-9]*/cmdline | tr "\0" " " | grep -o "sleep [0-9]*" | sort -u'
    call exec "$id" sh -c 'cat /proc/sys/kernel/random/boot_id' >"$work/one"
    call exec "$writer" sh -c 'cat /proc/sys/kernel/random/boot_id' | diff - "$work/one" && echo "one kernel"
    end
    rm -f "$work"/volume/*
}
s_network() {
    pod one --port 18080:8080
    first=$pod
    new server -- sh -c 'while :; do echo served | nc -l -p 8080; done'
    sleep 1
    timeout 20 busybox nc -w 10 "$(address "$first")" 8080 </dev/null
    timeout 20 busybox nc -w 10 "$(ip -4 -o addr show pods0 | awk '{ sub("/.*", "", $4); print $4 }')" 18080 </dev/null
    pod two
    new client -- sleep 1000
    call exec "$id" sh -c "nc -w 10 $(address "$first") 8080 </dev/null; nc -w 2 127.0.0.1 8080 </dev/null; echo localhost: \$?" 2>/dev/null
    end
    pod=$first; end
}
s_limits() {
    pod limits --memory 134217728 --cpus 1
    new keeps --memory 67108864 -- sleep 1000
    keeps=$id
    call exec "$keeps" sh -c 'cat /sys/fs/cgroup/memory.max'
    new greedy --memory 33554432 -- tail /dev/zero
    becomes "$id" exited
    call exec "$keeps" echo on
    call update "$keeps" 50331648
    call exec "$keeps" sh -c 'cat /sys/fs/cgroup/memory.max'
    end
}
# What kubelet's clients stream. Ports are forwarded by containerd itself, to the localhost of the pod's network namespace on
# the host.
s_streams() {
    pod streams
    new server -- sh -c 'while :; do echo served | nc -l -p 8080; done'
    call exec-stream "$id" sh -c 'read line; echo "got $line"; echo error >&2; exit 3' <<<"a line" 2>&1
    call exec-stream --tty 31x97 "$id" sh -c 'sleep 1; stty size; tty; read x; echo "typed $x"' <<<"a word" | tr -d '\r'
    call exec-stream "$id" sh -c 'seq 1 20000 | md5sum; seq 1 20000' </dev/null | md5sum
    call exec-stream "$id" no-such-program </dev/null 2>&1 | grep -o 'executable file not found in \$PATH' | head -1
    new asks --stdin once -- sh -c 'read line; echo "attached: $line"; echo error >&2; exit 5'
    call attach "$id" <<<"hello" 2>&1
    becomes "$id" exited
    call forward "$pod" 8080 <<<"x" 2>&1
    end
}
# containerd ends under its pods and comes back: what they print goes on, without a gap, and who ended meanwhile is told.
s_restart() {
    local last lines
    pod restart
    new counts -- sh -c 'n=0; while :; do echo $n; n=$((n + 1)); sleep 0.2; done'; counts=$id
    new ends -- sh -c 'echo ready; sleep 4; exit 33'; ends=$id
    says ends ready
    down KILL
    sleep 8
    last=$(printed counts | tail -n 1)
    up
    call pod-status "$pod" | cut -d' ' -f1
    call status "$counts"
    becomes "$ends" exited
    call exec "$counts" echo here
    says counts "^$((last + 20))\$"
    last=$(printed counts | tail -n 1) lines=$(printed counts | wc -l)
    # One that containerd had in its hand.
    [ $((last - lines)) -le 1 ] && echo "nothing is lost" || echo "$lines lines up to number $last"
    end
}
# A shim that is killed takes its pod with it.
s_crash() {
    local before pid shim gone
    pod crash
    new idles -- sh -c 'echo ready; sleep 1000'
    says idles ready
    shim=$(pgrep -f "containerd-shim.* -id $pod( |\$)" | head -1)
    # Of runc's the container's process: the sandbox's lives until containerd has the shim's remains deleted.
    pid=$(pgrep -P "$shim" | head -1)
    before=$(date +%s%N)
    kill -9 "$shim"
    while kill -0 "$pid" 2>/dev/null && [ $(($(date +%s%N) - before)) -lt 20000000000 ]; do sleep 0.1; done
    gone=$((($(date +%s%N) - before) / 1000000))
    [ $gone -lt $AT_ONCE ] || [ "$runtime" = runc ] || echo "gone after $gone ms only"
    echo "$runtime: gone $gone ms after its shim was killed" >>"$work/figures"
    becomes "$id" exited | cut -d' ' -f1
    for _ in $(seq 100); do case $(call pod-status "$pod") in not*) break;; esac; sleep 0.1; done
    call pod-status "$pod" | cut -d' ' -f1,2
    end
    # runc's shim leaves its socket then.
    [ "$runtime" = husk ] || find /run/containerd/s -type s -newermt "@$((before / 1000000000 - 60))" -delete
}
# Many pods come and go, ten at a time.
s_many() {
    local first count=10
    [ -z "${HUSK_FULL:-}" ] || count=100
    for ((first = 1; first <= count; first += 10)); do
        for number in $(seq $first $((first + 9))); do
            (
                pod "many-$number"
                new "many-$number" -- sh -c 'echo ready; sleep 1000'
                says "many-$number" ready
                end
            ) >"$work/many-$number" 2>&1 &
        done
        wait
        for number in $(seq $first $((first + 9))); do [ ! -s "$work/many-$number" ] || cat "$work/many-$number"; done
    done
    grep -l . "$work"/logs/many-*.log | wc -l
}
# A little of everything, in as few steps as show it: what `make test` does.
s_everyday() {
    pod everyday --memory 134217728
    new server -- sh -c 'trap "echo told; exit 4" TERM; echo begun; while :; do echo served | nc -l -p 8080 & wait $!; done'; server=$id
    new client --memory 67108864 -- sh -c 'echo ready; sleep 1000'
    says client ready
    figure "two idle containers"
    call exec "$id" sh -c 'cat /sys/fs/cgroup/memory.max; nc -w 5 127.0.0.1 8080 </dev/null; exit 3'
    call exec-stream "$id" sh -c 'read line; echo "got $line"; echo error >&2; exit 3' <<<"a line" 2>&1
    call stats "$server" | awk "$counted"
    down KILL
    up
    call pod-status "$pod" | cut -d' ' -f1
    call stop "$server"
    becomes "$server" exited
    printed server
    end
}
# What a pod with one idle container costs the host, its own memory counted: for the overhead that a RuntimeClass declares.
figure() {
    local pid of total=0
    for pid in $(pgrep 'husk|containerd-shim'); do
        of=$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null)
        total=$((total + ${of:-0}))
    done
    echo "$runtime: a pod with ${1:-one idle container}: $((total / 1024)) MiB" >>"$work/figures"
}

# --- what exists ----------------------------------------------------------------------------------------------------
census() {
    ps -eo comm= | grep -E '^(containerd-shim|husk:?.*|runc)$' || true
    mount | grep -F "$work/state" | awk '{ print $3 }' || true
    ls "$work"/state/io.containerd.{runtime.v2.task,sandbox.controller.v1.shim}/k8s.io /run/containerd/{husk,runc}/k8s.io /run/containerd/s /run/netns 2>/dev/null | grep '[^:]$' || true
    ls /sys/class/net | grep -v pods0
    find /sys/fs/cgroup/pods -mindepth 2 -type d 2>/dev/null || true
}
settled() { # BEFORE
    local now until=$((SECONDS + 10))
    while [ $SECONDS -lt $until ]; do
        now=$(census); [ "$now" = "$1" ] && return; sleep 0.2
    done
    diff <(echo "$1") <(echo "$now")
}
one() { # SCENARIO
    local before; before=$(census)
    rm -f "$work"/logs/*
    echo "== $1"
    ("s_$1") 2>&1
    echo "== left"
    settled "$before"
}

up
import test/pause:1 '["sleep", "1000000"]'
import test/busybox:1 '["sh"]'
# The daemon's image store hears of them.
for _ in $(seq 100); do ctr -a "$socket" -n k8s.io image ls | grep -q 'test/busybox:1.*io.cri-containerd.image=managed' && break; sleep 0.1; done
if [ "${1-}" = bench ]; then
    source "$here/pods-bench.sh" ${2+"$2"}
    down TERM
    exit
fi
for scenario; do
    for runtime in runc ${RUNTIMES:-$runtimes}; do
        result=$work/results/$runtime-$scenario since=$SECONDS
        [ $runtime = runc ] && result=$kept/runc-$scenario
        [ $runtime = runc ] && [ -n "${KEEP:-}" ] && [ -s "$result" ] && continue
        [ $runtime != sandbox ] || ctr -a "$socket" -n k8s.io image rm --sync docker.io/test/pause:1 >/dev/null
        one $scenario >"$result.raw" 2>&1
        [ $runtime != sandbox ] || import test/pause:1 '["sleep", "1000000"]'
        normal <"$result.raw" >"$result"
        echo "$scenario with $runtime: $((SECONDS - since)) s"
        [ $runtime = runc ] && continue
        # What runc leaves (a container of a pod whose shim was killed, with containerd 2.1) husk need not leave.
        expected=$(sed '/^== left$/q' "$kept/runc-$scenario")
        # runc's shim looks for kills for memory in the container's group on the host, and this one was in the guest.
        [ $runtime != stock ] || expected=${expected//OOMKilled/Error}
        diff -u <(echo "$expected") "$result" || failures=$((failures + 1))
    done
done
down TERM
cat "$work/figures"
echo "pods: $failures scenarios differ between runc and husk"
[ $failures = 0 ]
