#!/bin/bash
# kvm-works.sh VMLINUX: does this host's KVM run an ordinary guest? Exit 0, or 1 with one line that says why not.
#
# A /dev/kvm that opens proves nothing, nor do a few instructions run on it: there are hosts whose KVM does all that and
# never gets a kernel anywhere. So the guest kernel is booted, by QEMU and not by husk (whose own faults must not look
# like the host's), without a root filesystem: that it misses one is the last thing a kernel finds out at boot.
# The answer is kept for this boot of the host, this kernel and this QEMU; FORCE=1 asks again.
set -euo pipefail
limit=40 # seconds; a kernel takes a fraction of one on metal, and 15 with this much log in an emulated machine
kernel=${1:?usage: kvm-works.sh VMLINUX}
qemu=$(command -v "${QEMU:-qemu-system-x86_64}") || { echo "qemu-system-x86_64 is missing, which the check for KVM runs"; exit 1; }

no() { echo "$1"; exit 1; }
[ -r "$kernel" ] || no "no guest kernel at $kernel"
[ -e /dev/kvm ] || no "/dev/kvm does not exist"
[ -r /dev/kvm ] && [ -w /dev/kvm ] || no "/dev/kvm may not be opened by $(id -un)"

answers=${XDG_CACHE_HOME:-$HOME/.cache}/husk/kvm-works
key=$(cat /proc/sys/kernel/random/boot_id <(stat -Lc '%n %s %Y' "$kernel" "$qemu") | sha256sum | cut -c1-16)
answer=$answers/$key

arrived() { grep -aqE 'Unable to mount root fs|No working init found' "$work/log"; }

# One boot with the CPU model $1: `yes`, or how far it came.
boot() {
    local begun=$SECONDS took pid
    : >"$work/log"
    "$qemu" -nodefaults -no-user-config -accel kvm -cpu "$1" -m 256 -display none -no-reboot \
        -M microvm,isa-serial=on,rtc=on -serial "file:$work/log" -kernel "$kernel" \
        -append "earlyprintk=serial,ttyS0,115200 panic=-1 reboot=t" >"$work/said" 2>&1 </dev/null &
    pid=$!
    # A KVM that gives up leaves QEMU standing, and a kernel may find no way to reboot.
    while kill -0 $pid && [ $((SECONDS - begun)) -lt $limit ] && ! grep -q 'KVM internal error' "$work/said" && ! arrived; do
        sleep 0.1
    done
    kill -KILL $pid || true
    wait $pid || true
    took=$((SECONDS - begun))
    if arrived; then
        echo yes
    elif [ -s "$work/log" ]; then
        echo "its kernel came no further in $took s than: $(tail -n 1 "$work/log" | tr -d '\r' | cut -c1-120)"
    elif [ -s "$work/said" ]; then
        tail -n 1 "$work/said" | tr -d '\r' | cut -c1-200
    else
        echo "its kernel printed nothing in $took s"
    fi
} 2>/dev/null

if [ -n "${FORCE:-}" ] || [ ! -e "$answer" ]; then
    mkdir -p "$answers"
    find "$answers" -type f -mtime +7 -delete
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    ulimit -c 0
    result=$(boot host)
    # QEMU gives up when KVM refuses a register of the full CPU model, which a kernel may never want: ask for less.
    [ "$result" = yes ] || result=$(boot qemu64)
    echo "$result" >"$work/answer"
    mv "$work/answer" "$answer"
fi
result=$(<"$answer")
[ "$result" = yes ] || no "KVM here runs no ordinary guest: $result"
