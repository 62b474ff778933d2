#!/usr/bin/env bash
# demo.sh HUSK: what a newcomer sees: an OCI bundle running in a kernel of its own.
set -euo pipefail
husk=$1
source "$(dirname "$0")/where.sh"
images busybox
inside bash "$here/integration/demo-inside.sh" "$husk" "$images/busybox"
