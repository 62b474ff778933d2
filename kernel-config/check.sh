#!/bin/bash
# Boots a built kernel in an emulated machine and asks it, by system call,
# whether it holds what the fragments promise.
#
# Usage: kernel-config/check.sh [VMLINUX]      (default: what build.sh prints)
#
#   TIME_LIMIT   seconds until the guest must have ended (default: 180)
#   CMDLINE      more words for the kernel's command line, e.g. initcall_debug
#   LOG          a file for the kernel's log
#
# Prints a line for each answer and `N passed, N failed`; exits 0 if none failed.
# Emulated (TCG), so that it runs where KVM does not: times seen are not times.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() { printf 'check: %s\n' "$*" >&2; exit 1; }

readonly size_limit=$((24 * 1024 * 1024))
passed=0
failed=0
check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@"; then passed=$((passed + 1)); echo "ok    $name"; else failed=$((failed + 1)); echo "FAIL  $name"; fi
}

for tool in qemu-system-x86_64:qemu-system-x86 gcc:gcc cpio:cpio mke2fs:e2fsprogs readelf:binutils; do
    command -v "${tool%%:*}" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "${tool%%:*}" >/dev/null ||
        fail "${tool%%:*} is missing: install the package ${tool##*:}"
done
PATH=$PATH:/usr/sbin:/sbin

vmlinux=${1:-$("$here/build.sh")}
[[ -r $vmlinux ]] || fail "$vmlinux cannot be read"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- The file ---------------------------------------------------------------
notes=$(readelf -nW "$vmlinux" 2>/dev/null)
sections=$(readelf -SW "$vmlinux")
size "$vmlinux"
check "at most 24 MiB ($(stat -Lc %s "$vmlinux") bytes)" [ "$(stat -Lc %s "$vmlinux")" -le $size_limit ]
check "stripped" [ -z "$(grep -E '\.(symtab|debug)' <<<"$sections" || true)" ]
check "has a PVH entry (Xen note 18)" grep -qE 'Xen +0x[0-9a-f]+.*0x0*12\b' <<<"$notes"
check "holds no path of the build" [ -z "$(grep -aoE '/[a-z/._-]*husk/kernel/[0-9a-f]+\.building' "$vmlinux" | head -n 1)" ]

# --- The guest --------------------------------------------------------------
mkdir -p "$work/root/dev"
gcc -O1 -static -o "$work/root/init" "$here/check-init.c" || fail "the guest's program did not compile"
(cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/initrd"
truncate -s 8M "$work/disk"
mke2fs -q -t ext4 "$work/disk"

timeout "${TIME_LIMIT:-180}" qemu-system-x86_64 \
    -M microvm,acpi=off,pit=on,pic=on,rtc=off,isa-serial=on,x-option-roms=off -accel tcg -cpu max -smp 2 -m 256 \
    -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$vmlinux" -initrd "$work/initrd" \
    -append "earlyprintk=serial,ttyS0,115200,keep console=hvc0 maxcpus=1 reboot=t panic=-1 ${CMDLINE:-}" \
    -serial "file:$work/log" -chardev "file,id=answers,path=$work/answers" \
    -device virtio-serial-device -device virtconsole,chardev=answers \
    -device virtio-rng-device -device virtio-balloon-device,free-page-reporting=on \
    -netdev user,id=net,restrict=on -device virtio-net-device,netdev=net \
    -drive "if=none,id=disk,format=raw,file=$work/disk" -device virtio-blk-device,drive=disk &&
    ended=0 || ended=$?

[[ -z ${LOG:-} ]] || cp "$work/log" "$LOG"
# The console ends lines with CR LF; the kernel's own lines stand among ours.
tr -d '\r' <"$work/answers" >"$work/lines"
grep -E '^(ok|FAIL|info) ' "$work/lines" || true
summary=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$work/lines" || true)
if [[ -z $summary ]]; then
    tail -n 25 "$work/log" >&2
    fail "the guest ended without a result (exit status $ended; 124 is the time limit): the kernel's last lines are above"
fi
check "the machine ends when the guest says so" [ "$ended" -eq 0 ]
read -r guest_passed _ guest_failed _ <<<"$summary"
echo "$((passed + guest_passed)) passed, $((failed + guest_failed)) failed"
((failed + guest_failed == 0))
