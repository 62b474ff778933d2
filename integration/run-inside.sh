#!/usr/bin/env bash
# run-inside.sh HUSK TESTS IMAGES [ARGUMENTS...]: runs the test program, on a machine whose KVM runs guests.
# Programs are copied first: a build tree may be on a slow network file system here.
set -euo pipefail
husk=$1 tests=$2 images=$3; shift 3
work=/var/tmp/husk-it
mkdir -p "$work"
install "$husk" "$work/husk"
install "$tests" "$work/tests"
cd "$work"
export HUSK=$work/husk HUSK_BUSYBOX=$images/busybox HUSK_DEBIAN=$images/debian RUST_BACKTRACE=0
exec ./tests --test-threads=1 "$@"
