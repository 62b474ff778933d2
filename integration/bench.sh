#!/usr/bin/env bash
# bench.sh HUSK [ROUNDS [PART]]: the benchmark (or its start, exec, network or memory), wherever guests can run. Nothing else should be running meanwhile.
set -euo pipefail
husk=$1 rounds=${2:-10} part=${3:-}
source "$(dirname "$0")/where.sh"
cd "$here"
cargo build --release -p husk-integration --bin bench --locked
out=${CARGO_TARGET_DIR:-$here/target}
images busybox
inside bash "$here/integration/inside.sh" "$images" "$husk" "$out/$(uname -m)-unknown-linux-gnu/release/bench" \
    "$kernel" "$out/husk/initrd" -- "${kernel##*/}" initrd "$rounds" ${part:+"$part"}
