#!/usr/bin/env bash
# soak.sh HUSK: what takes hours and is therefore not in `make test`: a thousand containers and a thousand commands one after
# the other, death at every named point and at a thousand random moments, and each system call of each command failing.
# What came of it goes to docs/evidence/soak.txt, with date and commit.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
HUSK_FULL=1 integration/run.sh "$1" --nocapture y_soak w_kills w_faults 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
mkdir -p docs/evidence
{
    echo "make soak, $(date -u +%F), commit $(git describe --always --dirty), $(nproc) processors, $(uname -sr)"
    grep -E '^guests run|^test |^[0-9]+ (more|kills|calls)|^failures|panicked' "$log"
    echo "exit status $status"
} >docs/evidence/soak.txt
exit "$status"
