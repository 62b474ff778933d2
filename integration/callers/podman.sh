#!/usr/bin/env bash
# podman.sh HUSK BUSYBOX [SCENARIO...]: what users do with Podman (rootful), each thing with runc first, as the oracle, and then
# with husk: output and exit status must be the same, and nothing may be left.
#   HUSK      the program under test
#   BUSYBOX   an unpacked root filesystem, of which the image is made: no registry is asked
#   SCENARIO  names (all by default); `list` shows them, `quick` is a selection
#   SHOW      show also what is equal
# Runs as root on a machine whose KVM runs guests, with a store of its own in a state of its own (see state.sh).
set -uo pipefail
all="everyday run_status run_streams run_terminal run_process run_files run_rights run_privileged run_limits network_none network_host
    network_bridge network_user network_external_names network_publish network_connect life attach_and_events copy restart health
    build build_with_buildah compose pod kube"
quick="everyday"
case ${3-} in list) echo $all; exit ;; esac
caller=podman
source "$(dirname "$0")/state.sh"
source "$here/compare.sh"
husk=$1 busybox=$2; shift 2
C=podman
# Without systemd nobody runs health checks by the clock.
export EVENT='{{.Status}}' HEALTH_INTERVAL=disable HEALTH_CHECK='podman healthcheck run s-health-h' BUSYBOX=$busybox COMPOSE_RUNTIME=
new_container() { podman --runtime "$RUNTIME" "$@"; }
build_image() {
    case ${BUILDER-podman} in
    podman) podman --runtime "$RUNTIME" build --no-cache -t "$1" "$2" ;;
    buildah) buildah build --no-cache --isolation oci --runtime "$(command -v "$RUNTIME")" -t "$1" "$2" ;;
    esac
}
# With --until, Podman 5.4 ends now and then before it has read its file.
recent_events() { podman events --stream=false "$@"; }
# Compose talks to Podman's own service as it would to Docker's.
compose_command() {
    if [ ! -S "$W/podman.sock" ]; then
        podman --runtime "$RUNTIME" system service -t 0 "unix://$W/podman.sock" >"$W/service.log" 2>&1 &
        echo $! >"$work/service.pid"
        until_true "test -S $W/podman.sock"
    fi
    DOCKER_HOST=unix://$W/podman.sock docker-compose --progress quiet "$@"
    case " $* " in *" down "*) end_service ;; esac
}
end_service() {
    [ ! -f "$work/service.pid" ] || kill "$(cat "$work/service.pid")"
    rm -f "$work/service.pid"
}
sweep() {
    podman pod rm -fa -t 0
    podman rm -fa -t 0
    podman network prune -f
    podman volume prune -f
    podman rmi -f $(podman images -q --filter 'reference=made*')
    end_service
}
export -f end_service

install "$husk" "$work/bin/husk"
export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf
cat >"$CONTAINERS_CONF" <<END
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
runtime_supports_json = ["crun", "runc", "husk"]
static_dir = "$work/libpod"
tmp_dir = "$work/run-libpod"
volume_path = "$work/volumes"
[engine.runtimes]
husk = ["$work/bin/husk"]
[network]
network_config_dir = "$work/networks"
END
cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "overlay"
graphroot = "$work/storage"
runroot = "$work/run-storage"
END
tar -C "$busybox" -c . | podman import -q - busybox >/dev/null || exit 1
case ${1-} in '') set -- $all ;; quick) set -- $quick ;; esac
compare "$@"
