# Sourced: decides where guests can run, says so once, and gives `inside CMD...` (runs CMD there, as root) and
# `images KIND...` (puts root filesystems to $images/KIND there; before the first `inside`).
# $emulated is empty where that is not the emulated machine.
# There is: this machine, where its KVM runs ordinary guests; else the emulated machine.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kernel=$(cat "${CARGO_TARGET_DIR:-$here/target}/husk/kernel-path")
images=/var/tmp/husk-images
machine=("$here/integration/emulated/machine")
name=${HUSK_MACHINE:-husk-$(printf %s "$here${SUITE-}" | cksum | cut -d' ' -f1)}
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo --preserve-env "$@"; fi; }
emulated=
if reason=$("$here/integration/emulated/kvm-works.sh" "$kernel" 2>&1) && command -v runc >/dev/null; then
    echo "guests run on this machine's own KVM" >&2
    images() {
        local kind
        for kind; do
            [ -d "$images/$kind" ] && continue
            mkdir -p "$images"
            as_root "$here/integration/rootfs/make.sh" "$kind" "$images/$kind" >/dev/null
        done
    }
    inside() { as_root "$@"; }
else
    emulated=yes
    echo "guests run in the emulated machine: ${reason:-runc is not installed}" >&2
    images() {
        local kind disks=()
        for kind; do
            # SUITE is the machine's: the root filesystems stay what they are.
            disks+=(--disk "$(dirname "$(env -u SUITE "$here/integration/rootfs/make.sh" "$kind")")/rootfs.img:$images/$kind")
        done
        "${machine[@]}" up --name "$name" "${disks[@]}" >&2 || return
        trap '"${machine[@]}" down --name "$name" >&2 || true' EXIT
    }
    inside() {
        local given=(--env HUSK_EMULATED=1) key
        for key in HUSK_FULL RUNTIMES STOCK; do [ -z "${!key-}" ] || given+=(--env "$key=${!key}"); done
        "${machine[@]}" run --name "$name" "${given[@]}" -- "$@"
    }
fi
