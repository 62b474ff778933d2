#!/bin/sh
# initramfs.sh OUT [AGENT]: packs the agent as /init of an initramfs, uncompressed (newc cpio; it is mapped, not stored).
#
# AGENT defaults to the release build. The archive holds nothing else but the nodes that a program finds open or opens
# before it has a /dev. Same agent, same bytes: no times, no owners but 0, numbers in order. Needs no root and no cpio.
set -eu
out=${1:?usage: initramfs.sh OUT [AGENT]}
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}
agent=${2:-$target/x86_64-unknown-linux-gnu/release/husk-agent}
[ -f "$agent" ] || { echo "initramfs.sh: no agent at $agent (cargo build --release -p husk-agent)" >&2; exit 1; }

number=0
# entry NAME MODE(octal) LINKS MAJOR MINOR [FILE]
entry() {
    number=$((number + 1))
    size=0
    [ $# -lt 6 ] || size=$(wc -c <"$6")
    length=$((${#1} + 1))
    # magic, inode, mode, uid, gid, links, time, size, device of the file, device that it is, name's length, checksum
    printf '070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x' \
        "$number" "0$2" 0 0 "$3" 0 "$size" 0 0 "$4" "$5" "$length" 0
    printf '%s\0' "$1"
    pad $((110 + length))
    [ $# -lt 6 ] || { cat "$6"; pad "$size"; }
}
# To a multiple of four bytes.
pad() {
    case $(($1 % 4)) in
    1) printf '\0\0\0' ;;
    2) printf '\0\0' ;;
    3) printf '\0' ;;
    esac
}

{
    entry dev 40755 2 0 0
    # The null device: a kernel that cannot open its console complains, and each character costs two exits. Its built-in
    # archive holds one already, which only an entry of another kind takes away.
    entry dev/console 100600 1 0 0
    entry dev/console 20600 1 1 3
    entry dev/kmsg 20600 1 1 11
    entry dev/null 20666 1 1 3
    entry init 100755 1 0 0 "$agent"
    number=-1 entry 'TRAILER!!!' 0 1 0 0
} >"$out.new"
mv "$out.new" "$out"
