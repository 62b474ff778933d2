#!/usr/bin/env bash
# run.sh SECONDS [TARGET...]: each fuzzer for so long, from the committed corpus. Ends at the first finding, with the input
# that shows it. Coverage counters come from flags that a stable compiler takes, so no other toolchain is needed;
# `cargo fuzz run TARGET` works as well.
set -euo pipefail
seconds=$1; shift
cd "$(dirname "$0")"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../target}/fuzz
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --release --bins --locked
[ $# -gt 0 ] || set -- $(basename -s .rs fuzz_targets/*.rs)
for target in "$@"; do
    # Absolute paths: the file server's thread has another working directory. New inputs go to a folder of their own: `found` is not committed, `corpus` is.
    mkdir -p "corpus/$target" "found/$target" "artifacts/$target"
    log=$(mktemp)
    if ! "$CARGO_TARGET_DIR/$(uname -m)-unknown-linux-gnu/release/$target" "$PWD/found/$target" "$PWD/corpus/$target" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -max_len=8192 -close_fd_mask=1 -print_final_stats=1 -artifact_prefix="$PWD/artifacts/$target/" >"$log" 2>&1
    then
        tail -40 "$log"; rm "$log"
        echo "fuzz: $target: a finding" >&2
        exit 1
    fi
    echo "fuzz: $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs, no finding," \
        "$(sed -n 's/.*cov: \([0-9]*\) .*/\1/p' "$log" | tail -1) edges"
    rm "$log" && rm -rf /dev/shm/husk-fuzz-*
done
