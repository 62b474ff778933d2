#!/usr/bin/env bash
# bench-inside.sh HUSK BENCH BUSYBOX KERNEL INITRD ROUNDS: copies everything to a local disk first, then measures.
set -euo pipefail
husk=$1 bench=$2 busybox=$3 kernel=$4 initrd=$5 rounds=$6
work=/var/tmp/husk-it
mkdir -p "$work/images/busybox"
install "$husk" "$work/husk"; install "$bench" "$work/bench"; cp "$kernel" "$work/kernel"; cp "$initrd" "$work/initrd"
tar -C "$work/images/busybox" -xpf "$busybox.tar" --numeric-owner
cd "$work"
export HUSK=$work/husk HUSK_BUSYBOX=$work/images/busybox
exec ./bench kernel initrd "$rounds"
