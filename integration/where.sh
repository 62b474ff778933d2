# Sourced: decides where guests can run, says so once, and defines `inside CMD...` that runs a command there, as root.
# Directly where KVM runs ordinary guests, else in the emulated machine.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/husk
kernel=$(cat "${CARGO_TARGET_DIR:-$here/target}/husk/kernel-path")
machine=${HUSK_MACHINE:-husk-$(printf %s "$here" | cksum | cut -d' ' -f1)}
if reason=$("$here/integration/emulated/kvm-works.sh" "$kernel" 2>&1) && command -v runc >/dev/null; then
    echo "KVM runs guests on this machine: running there" >&2
    where=here
    inside() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo --preserve-env "$@"; fi; }
else
    echo "${reason:-runc is not installed}: running in the emulated machine" >&2
    where=emulated
    inside() { "$here/integration/emulated/machine" run --name "$machine" "${options[@]}" -- "$@"; }
fi
options=()
finish() { if [ "$where" = emulated ]; then "$here/integration/emulated/machine" down --name "$machine" >&2 || true; fi; }
