#!/usr/bin/env bash
# bench.sh HUSK SHIM [ROUNDS [PART]]: the benchmark (or its start, exec, network, streams, memory or pods), wherever guests can run.
# Nothing else should be running meanwhile.
set -euo pipefail
husk=$1 shim=$2 rounds=${3:-10} part=${4:-}
source "$(dirname "$0")/where.sh"
cd "$here"
cargo build --release -p husk-integration --bin bench --locked
out=${CARGO_TARGET_DIR:-$here/target}
images busybox
if [ "$part" != pods ]; then
    inside bash "$here/integration/inside.sh" "$images" "$husk" "$out/$(uname -m)-unknown-linux-gnu/release/bench" \
        "$kernel" "$out/husk/initrd" -- "${kernel##*/}" initrd "$rounds" ${part:+"$part"}
fi
case $part in '' | pods) ONLY=pods integration/callers/run.sh "$husk" "$shim" bench "$rounds" ;; esac
