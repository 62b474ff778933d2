#!/usr/bin/env bash
# bench.sh HUSK SHIM [ROUNDS [PART]]: the benchmark, wherever guests can run. Nothing else should be running meanwhile.
# PART is one of start, exec, network, streams, files, memory, growth, pods and size; all by default.
# Tables are printed as they come. The same with pictures is a page, $out/husk/bench/benchmarks.md; when everything was measured it
# is docs/benchmarks.md as well, with the pictures in docs/benchmarks.
set -euo pipefail
husk=$(realpath "$1") shim=$(realpath "$2") rounds=${3:-10} part=${4:-}
source "$(dirname "$0")/where.sh"
cd "$here"
cargo build --release -p husk-integration --bin bench --locked
out=${CARGO_TARGET_DIR:-$here/target}
page=$out/husk/bench/benchmarks.md pictures=$out/husk/bench/benchmarks
rm -rf "$out/husk/bench"
mkdir -p "$pictures"
wanted() { [ -z "$part" ] || [[ " $* " == *" $part "* ]]; }
tables() { tee -a "$page"; }

heading() {
    local state; state=$(git -C "$here" describe --always --dirty --abbrev=12)
    echo "# Benchmarks"
    echo
    echo "Written by \`integration/bench.sh\` (\`make bench\`): to be made anew, not edited. Figures in tables are medians, with their ratio to"
    echo "runc's; one sample of each contender was taken in each round. [performance.md](performance.md) says what they are made of."
    echo
    echo "| | |"
    echo "|---|---|"
    echo "| date | $(date -u +'%F %H:%M') UTC |"
    echo "| commit | $state |"
    echo "| machine | $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) processors, $(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB, $(uname -sr) |"
    if [ -n "$emulated" ]; then
        echo "| guests | in the emulated machine (integration/emulated), sizes scaled down: times say nothing by themselves |"
    else
        echo "| guests | on this machine's own KVM |"
    fi
    echo "| in it | $(inside uname -sr), $(inside nproc) processors, $(inside awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB |"
    echo "| beside | $(inside runc --version | head -1), $(inside crun --version | head -1), $(inside qemu-system-x86_64 --version | head -1) |"
    echo
}

# What a user downloads: the program, and as a package would hold it.
size() {
    echo "## size: husk is one file"
    echo
    echo "| MiB | runc | husk | ratio |"
    echo "|---|---|---|---|"
    # The emulation would take minutes to compress it.
    local runc=$out/husk/bench/runc
    inside sh -c "cp \"\$(command -v runc)\" '$runc'"
    row() { awk -v what="$1" -v theirs="$2" -v ours="$3" 'BEGIN { printf "| %s | %.2f | %.2f | %.2f |\n", what, theirs / 1048576, ours / 1048576, ours / theirs }'; }
    row "as it is installed" "$(stat -c %s "$runc")" "$(stat -c %s "$husk")"
    row "compressed (xz -6)" "$(xz -6 -c "$runc" | wc -c)" "$(xz -6 -c "$husk" | wc -c)"
    rm -f "$runc"
    echo
    echo "husk holds its guest's kernel and initial RAM file system; runc takes the host's kernel."
    echo
}

kinds=busybox
! wanted files || kinds+=" work"
images $kinds
heading >"$page"
if wanted size; then size | tables; fi
if wanted start exec network streams files memory growth; then
    inside env HUSK_PICTURES="$pictures" bash "$here/integration/inside.sh" "$images" "$husk" "$out/$(uname -m)-unknown-linux-gnu/release/bench" \
        "$kernel" "$out/husk/initrd" -- "${kernel##*/}" initrd "$rounds" ${part:+"$part"} | tables
fi
if wanted pods; then
    # Its own words before its tables are not the page's.
    ONLY=pods integration/callers/run.sh "$husk" "$shim" bench "$rounds" | tee "$out/husk/bench/pods"
    sed -n '/^## /,$p' "$out/husk/bench/pods" >>"$page"
fi
echo "the page is $page" >&2
if [ -z "$part" ]; then
    rm -rf docs/benchmarks
    cp -r "$pictures" docs/benchmarks
    cp "$page" docs/benchmarks.md
    echo "and docs/benchmarks.md, with its pictures" >&2
fi
