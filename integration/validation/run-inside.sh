#!/usr/bin/env bash
# run-inside.sh PROGRAMS OUTPUT RUNTIME... [-- NAME...]: runs the OCI validation programs in PROGRAMS (from build.sh)
# against each runtime, on a machine whose KVM runs guests, and prints a table: program, what came of it with each. What
# they printed is left in OUTPUT/RUNTIME/NAME.tap. Fails when a program that passes with the first runtime does not with
# another.
#
# A program passes when it exits with 0 and complains of nothing (some that pass say nothing at all); `skip`: it skips
# all; `time`: it took longer than LIMIT seconds.
set -euo pipefail
programs=$1 output=$2; shift 2
runtimes=() names=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do runtimes+=("$1"); shift; done
[ $# -gt 0 ] && shift && names=("$@")
limit=${LIMIT:-90}

# Off the share: a file server is no place for device nodes, and each program unpacks a root filesystem.
work=/var/tmp/husk-validation
rm -rf --one-file-system "$work" && mkdir -p "$work/tmp"
cp "$programs"/* "$work/"
cd "$work"
export TMPDIR=$work/tmp
[ ${#names[@]} -gt 0 ] || names=($(ls -- *.t | sed 's/\.t$//'))

# What a program's output and status come to.
verdict() {
    local status=$1 file=$2
    case $status in
    124 | 137) echo time; return ;;
    0) ;;
    *) echo fail; return ;;
    esac
    awk '/^not ok/ && !/# TODO/ || /^ *"error": "./ && !results { bad = 1 }
        /^ok/ { results = 1; if (/# SKIP/) skipped = 1; else good = 1 }
        END { print bad ? "fail" : good || !results ? "pass" : "skip" }' "$file"
}

# What a program left of its containers, so that the next begins as the first did.
clean() {
    local runtime=$1 id
    for id in $("$runtime" list -q 2>/dev/null); do "$runtime" delete --force "$id" >/dev/null 2>&1 || true; done
    # A root filesystem whose mounts are shared may have handed them to this machine.
    awk -v top="$work/tmp/" 'index($5, top) == 1 {print $5}' /proc/self/mountinfo | tac |
        while read -r place; do umount -l "$place" || true; done
    rm -rf --one-file-system "$work"/tmp/* 2>/dev/null || true
}

header="program"
for runtime in "${runtimes[@]}"; do header+=" | ${runtime##*/}"; done
echo "$header"
worse=0
for name in "${names[@]}"; do
    row=$name first=
    for runtime in "${runtimes[@]}"; do
        mkdir -p "$output/${runtime##*/}"
        tap=$output/${runtime##*/}/$name.tap
        status=0
        RUNTIME=$runtime timeout --kill-after=5 "$limit" "./$name.t" >"$tap" 2>"$tap.err" </dev/null || status=$?
        came=$(verdict "$status" "$tap")
        row+=" | $came"
        [ -n "$first" ] || first=$came
        if [ "$first" = pass ] && [ "$came" != pass ]; then worse=$((worse + 1)); fi
        clean "$runtime"
    done
    echo "$row"
done
rm -rf --one-file-system "$work"
echo "worse than ${runtimes[0]##*/}: $worse"
[ "$worse" = 0 ]
