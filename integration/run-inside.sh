#!/usr/bin/env bash
# run-inside.sh HUSK TESTS BUSYBOX DEBIAN [ARGUMENTS...]: runs the test program, on a machine whose KVM runs guests.
# Programs and images are copied first: a build tree may be on a slow network file system here.
set -euo pipefail
husk=$1 tests=$2 busybox=$3 debian=$4; shift 4
work=/var/tmp/husk-it
mkdir -p "$work/images"
install "$husk" "$work/husk"
install "$tests" "$work/tests"
for image in busybox debian; do
    from=${!image}
    [ -d "$work/images/$image" ] || { mkdir "$work/images/$image.new"; tar -C "$work/images/$image.new" -xpf "$from.tar" --numeric-owner --xattrs; mv "$work/images/$image.new" "$work/images/$image"; }
done
cd "$work"
export HUSK=$work/husk HUSK_BUSYBOX=$work/images/busybox HUSK_DEBIAN=$work/images/debian RUST_BACKTRACE=0
exec ./tests --test-threads=1 "$@"
