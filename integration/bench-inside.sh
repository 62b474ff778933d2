#!/usr/bin/env bash
# bench-inside.sh HUSK BENCH IMAGES KERNEL INITRD ROUNDS: copies everything to a local disk first, then measures.
set -euo pipefail
husk=$1 bench=$2 images=$3 kernel=$4 initrd=$5 rounds=$6
work=/var/tmp/husk-it
mkdir -p "$work"
install "$husk" "$work/husk"; install "$bench" "$work/bench"; cp "$kernel" "$work/kernel"; cp "$initrd" "$work/initrd"
cd "$work"
export HUSK=$work/husk HUSK_BUSYBOX=$images/busybox
exec ./bench kernel initrd "$rounds"
