#!/usr/bin/env bash
# docker.sh HUSK SHIM BUSYBOX [SCENARIO...]: what users do with Docker, each thing with runc first, as the oracle, and then
# with husk: output and exit status must be the same, and nothing may be left.
#   HUSK SHIM  the programs under test
#   BUSYBOX    an unpacked root filesystem, of which the image is made: no registry is asked
#   SCENARIO   names (all by default); `list` shows them, `quick` is a selection
#   RUNTIMES   entries of the daemon's table to compare with runc: husk (by path, the default), husk-shim (by runtimeType)
#   SHOW       show also what is equal
#   HUSK_FULL  among all are those that take long
# Runs as root on a machine whose KVM runs guests, with daemons of its own in a state of its own (see state.sh).
set -uo pipefail
all="everyday run_status run_streams run_terminal run_process run_files run_rights run_privileged run_limits network_none network_host
    network_bridge network_user network_external_names network_publish network_connect life attach_and_events copy restart health
    build compose docker_socket"
quick="everyday"
# What takes minutes where guests are emulated.
[ -z "${HUSK_FULL-}" ] || all+=" docker_inside"
case ${4-} in list) echo $all; exit ;; esac
caller=docker
source "$(dirname "$0")/state.sh"
source "$here/compare.sh"
husk=$1 shim=$2 busybox=$3; shift 3
C=docker
export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work EVENT='{{.Action}}' HEALTH_INTERVAL=1s HEALTH_CHECK=true BUSYBOX=$busybox
export COMPOSE_RUNTIME='runtime: ${RUNTIME}'
new_container() { local verb=$1; shift; docker "$verb" --runtime "$RUNTIME" "$@"; }
# Docker's classic builder takes the daemon's default runtime; BuildKit inside Docker takes the `runc` of its path, whatever
# the daemon is told.
build_image() {
    jq ".[\"default-runtime\"] = \"$RUNTIME\"" "$work/daemon.json" >"$work/daemon.json.new"
    cat "$work/daemon.json.new" >"$work/daemon.json"
    kill -HUP "$(cat "$work/dockerd.pid")"
    until_true "docker info -f '{{.DefaultRuntime}}' | grep -x $RUNTIME"
    DOCKER_BUILDKIT=0 docker build --no-cache -t "$1" "$2"
}
recent_events() { docker events --until "$(($(date +%s) + 1))" "$@"; }
compose_command() { docker compose --progress quiet "$@"; }
sweep() {
    docker rm -f $(docker ps -aq)
    docker network prune -f
    docker volume prune -af
    docker rmi -f $(docker images -q "made*")
}

install "$husk" "$work/bin/husk"
install "$shim" "$work/bin/containerd-shim-husk-v2"
cat >"$work/daemon.json" <<END
{
    "runtimes": {
        "husk": { "path": "$work/bin/husk" },
        "husk-shim": { "runtimeType": "io.containerd.husk.v2" }
    },
    "data-root": "$work/data", "exec-root": "$work/exec", "pidfile": "$work/dockerd.pid", "hosts": ["$DOCKER_HOST"],
    "exec-opts": ["native.cgroupdriver=cgroupfs"]
}
END
containerd --root "$work/c-root" --state "$work/c-state" --address "$work/c.sock" >"$work/containerd.log" 2>&1 &
until_true "test -S $work/c.sock"
dockerd --config-file "$work/daemon.json" --containerd "$work/c.sock" >"$work/dockerd.log" 2>&1 &
until_true "docker info"
tar -C "$busybox" -c . | docker import - busybox >/dev/null || { tail -n 20 "$work/dockerd.log"; exit 1; }
case ${1-} in '') set -- $all ;; quick) set -- $quick ;; esac
compare "$@"
