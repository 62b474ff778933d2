#!/usr/bin/env bash
# inside.sh IMAGES HUSK PROGRAM [FILE...] -- ARGUMENTS...: runs PROGRAM, which calls HUSK, on a machine whose KVM runs
# guests. All files are copied first: a build tree may be on a slow network file system here, and is read at each start.
set -euo pipefail
images=$1 husk=$2 program=$3; shift 2
work=/var/tmp/husk-it
mkdir -p "$work"
install "$husk" "$work/husk"
while [ "$1" != -- ]; do install "$1" "$work/"; shift; done
shift
cd "$work"
export HUSK=$work/husk HUSK_STOPPING=$work/husk-stopping HUSK_EVIL_AGENT=$work/evil-agent HUSK_EVIL_GUEST=$work/evil-guest HUSK_BUSYBOX=$images/busybox HUSK_DEBIAN=$images/debian HUSK_WORK=$images/work RUST_BACKTRACE=0
exec "./${program##*/}" "$@"
