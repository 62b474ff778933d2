#!/usr/bin/env bash
# pods.sh HUSK SHIM CRI IMAGE [SCENARIO...]: Kubernetes' pods as containerd makes them, with runc first, then with husk's shim
# and with husk under runc's shim: the same calls of the container runtime interface, and what came of them compared. CRI
# plays the kubelet (integration/src/bin/cri.rs). IMAGE is an unpacked busybox. Run as root on a machine whose KVM runs
# guests. With KEEP=1 what runc did the last time is taken for what it does. RUNTIMES names others than "husk stock".
set -uo pipefail
husk=$1 shim=$2 cri=$3 image=$4; shift 4
wanted=${*:-all}
work=/var/tmp/husk-pods
mount | awk -v work="$work/" 'index($3, work) == 1 { print $3 }' | xargs -r umount -l
# What a run that was cut short has left.
for store in /run/containerd/{husk,runc}/k8s.io; do
    for id in $(ls "$store" 2>/dev/null); do
        program=runc; case $store in */husk/*) program=$husk ;; esac
        "$program" --root "$store" delete --force "$id"
    done
done
rm -rf "$work"/{root,state,logs,volume}
mkdir -p "$work"/{bin,logs,cni,results,volume}
install "$husk" "$work/bin/husk"
install "$shim" "$work/bin/containerd-shim-husk-v2"
install "$cri" "$work/bin/cri"
export PATH=$work/bin:$PATH
socket=$work/state/containerd.sock
failures=0
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
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.husk]
      runtime_type = "io.containerd.husk.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.stock]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.stock.options]
        BinaryName = "$work/bin/husk"
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
    containerd --config "$work/config.toml" >>"$work/containerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do ctr -a "$socket" version >/dev/null 2>&1 && return; sleep 0.1; done
    tail "$work/containerd.log"; exit 1
}
down() { kill "$daemon"; wait "$daemon" 2>/dev/null || true; }
trap 'kill -9 $daemon 2>/dev/null; exit 1' INT TERM

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
call() { cri "$socket" "$@"; }
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
    for _ in $(seq 300); do case $(call status "$1") in "$2"*) call status "$1"; return;; esac; sleep 0.1; done
    echo "does not become $2: $(call status "$1")"
}
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
    call stats "$first" | awk '{ print ($1 > 0 && $2 > 0) ? "counted" : "not counted: " $0 }'
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
s_many() {
    for number in 1 2 3; do
        pod "many-$number"
        new "many-$number" -- sh -c 'echo ready; sleep 1000'
        becomes "$id" running
        end
    done
}
# What a pod with one idle container costs the host, its own memory counted: for the overhead that a RuntimeClass declares.
figure() {
    local pid of total=0
    for pid in $(pgrep 'husk|containerd-shim'); do
        of=$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null)
        total=$((total + ${of:-0}))
    done
    echo "$runtime: a pod with one idle container: $((total / 1024)) MiB" >>"$work/figures"
}

# --- what exists ----------------------------------------------------------------------------------------------------
census() {
    ps -eo comm= | grep -E '^(containerd-shim|husk:?.*|runc)$' || true
    mount | grep -F "$work/state" | awk '{ print $3 }' || true
    ls "$work/state/io.containerd.runtime.v2.task/k8s.io" /run/containerd/{husk,runc}/k8s.io /run/containerd/s /run/netns 2>/dev/null | grep '[^:]$' || true
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
for scenario in life shared network limits many; do
    case " $wanted " in *" all "*|*" $scenario "*) ;; *) continue ;; esac
    for runtime in runc ${RUNTIMES:-husk stock}; do
        result=$work/results/$runtime-$scenario since=$SECONDS
        [ $runtime = runc ] && [ -n "${KEEP:-}" ] && [ -s "$result" ] && continue
        one $scenario >"$result.raw" 2>&1
        normal <"$result.raw" >"$result"
        echo "$scenario with $runtime: $((SECONDS - since)) s"
        [ $runtime = runc ] && continue
        # runc's shim looks for kills for memory in the container's group on the host, and this one was in the guest.
        expected=$(cat "$work/results/runc-$scenario")
        [ $runtime = husk ] || expected=${expected//OOMKilled/Error}
        diff -u <(echo "$expected") "$result" || failures=$((failures + 1))
    done
done
down
cat "$work/figures"
ip link delete pods0 2>/dev/null
echo "pods: $failures scenarios differ between runc and husk"
[ $failures = 0 ]
