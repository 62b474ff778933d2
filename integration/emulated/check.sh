#!/bin/bash
# check.sh: does the emulated machine keep its promises? Boots one of its own, named "check"; about a minute.
# Each line is a promise that `machine` makes; the first broken one ends the check.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
machine=$here/machine
name=check-$$
scratch=$(mktemp -d)
trap '"$machine" down --name $name; rm -rf "$scratch"' EXIT

inside() { "$machine" run --name $name "$@"; }
kept() { echo "ok    $1"; }
broken() { echo "BROKEN $1"; exit 1; }
status_of() { local status=0; "$@" || status=$?; echo $status; }
nothing_runs() { [ "$(inside -- pgrep -c -f "$1")" = 0 ]; }

"$machine" up --name $name --share "$scratch" || broken "the machine boots"
kept "the machine boots"

[ "$(status_of inside -- true)" = 0 ] && [ "$(status_of inside -- sh -c 'exit 7')" = 7 ] &&
    [ "$(status_of inside -- sh -c 'kill -9 $$')" = 137 ] && [ "$(status_of inside -- no-such-program 2>/dev/null)" = 127 ] &&
    [ "$(status_of inside -- /etc/passwd 2>/dev/null)" = 126 ] || broken "exit statuses come back"
kept "exit statuses come back"

inside -- sh -c 'echo out; echo err >&2' >"$scratch/out" 2>"$scratch/err"
[ "$(cat "$scratch/out")" = out ] && [ "$(cat "$scratch/err")" = err ] || broken "standard output and error are apart"
kept "standard output and error are apart"

[ "$(inside --env A='b c' --env HOME=/x -- sh -c 'echo "$A $HOME"')" = "b c /x" ] || broken "variables are passed"
kept "variables are passed"

[ "$(cd "$scratch" && inside -- pwd)" = "$scratch" ] && [ "$(cd / && inside -- pwd)" = / ] || broken "the working directory is the same"
kept "the working directory is the same"

echo one >"$scratch/file"
inside -- cat "$scratch/file" >/dev/null
echo two >"$scratch/file"
[ "$(inside -- cat "$scratch/file")" = two ] || broken "a change outside is seen inside"
inside -- sh -c "echo three >$scratch/file"
[ "$(cat "$scratch/file")" = three ] || broken "a change inside is seen outside"
kept "shares are the same on both sides at once"

inside -- sh -c "head -c 10485760 /dev/urandom | tee $scratch/data" >"$scratch/came"
[ "$(stat -c %s "$scratch/came")" = 10485760 ] && cmp "$scratch/came" "$scratch/data" || broken "10 MiB of output are byte-exact"
kept "10 MiB of output are byte-exact"

for i in $(seq 20); do
    (inside -- sh -c "seq $((i * 1000)) $((i * 1000 + 20000)); exit $i" >"$scratch/out.$i" || echo $? >"$scratch/status.$i") &
done
wait
for i in $(seq 20); do
    [ "$(cat "$scratch/status.$i")" = "$i" ] && seq $((i * 1000)) $((i * 1000 + 20000)) | cmp - "$scratch/out.$i" ||
        broken "twenty commands at once keep to themselves"
done
kept "twenty commands at once keep to themselves"

[ "$(status_of inside --timeout 1 -- sleep 4711 2>/dev/null)" = 124 ] && nothing_runs 'sleep 471[1]' || broken "a time limit ends the command"
[ "$(status_of inside --timeout 1 -- sh -c 'trap "" TERM; setsid sleep 4712 & sleep 4712' 2>/dev/null)" = 124 ] && nothing_runs 'sleep 471[2]' ||
    broken "a time limit ends what ignores it"
kept "a time limit ends the command and all that it started"

"$machine" run --name $name -- sh -c 'trap "echo caught; exit 3" TERM; echo ready; while :; do sleep 0.1; done' >"$scratch/out" &
until grep -q ready "$scratch/out"; do sleep 0.1; done
kill -TERM $!
status=0
wait $! || status=$?
[ $status = 3 ] && grep -q caught "$scratch/out" || broken "SIGTERM reaches the command"
kept "SIGTERM reaches the command"

"$machine" run --name $name -- sh -c 'echo ready; exec sleep 4713' >"$scratch/out2" &
until grep -q ready "$scratch/out2"; do sleep 0.1; done
kill -KILL $!
wait $! 2>/dev/null || true
sleep 1
nothing_runs 'sleep 471[3]' || broken "SIGKILL of \`machine run\` ends the command"
kept "SIGKILL of \`machine run\` ends the command"

inside -- yes | head -n 1 >/dev/null || true
sleep 1
nothing_runs '^ye[s]' || broken "a reader that goes away ends the command"
kept "a reader that goes away ends the command"

inside --timeout 8 -- yes 2>/dev/null | sleep 9 & # which does not read
sleep 1
[ "$(inside -- echo still there)" = "still there" ] || broken "a reader that stops stops only its own command"
wait
nothing_runs '^ye[s]' || broken "a reader that stops does not stop the time limit"
kept "a reader that stops stops only its own command"

inside -- sh -c 'setsid sleep 4714 >/dev/null 2>&1 &'
[ "$(inside -- pgrep -c -f 'sleep 471[4]')" = 1 ] || broken "what a command leaves in the background stays"
kept "what a command leaves in the background stays"

status=0
printf 'tty; stty size; exit 5\n' | script -qec "stty rows 33 cols 77; '$machine' shell --name $name" /dev/null >"$scratch/tty" || status=$?
[ $status = 5 ] && grep -q /dev/pts/ "$scratch/tty" && grep -q '33 77' "$scratch/tty" || broken "the shell has a terminal of the right size"
kept "the shell has a terminal of the right size"

status=0
inside -- sh -c 'echo c >/proc/sysrq-trigger; sleep 60' 2>"$scratch/err" || status=$?
[ $status = 125 ] && grep -q 'sysrq triggered crash' "$scratch/err" || broken "a crash of the machine is noticed, with its console"
kept "a crash of the machine is noticed, with its console"

"$machine" status --name $name >/dev/null && broken "a dead machine is not up"
[ "$(inside -- echo back 2>/dev/null)" = back ] || broken "a dead machine boots again"
kept "a dead machine boots again"

"$machine" down --name $name
"$machine" status --name $name >/dev/null && broken "down ends it"
kept "down ends it"

"$machine" up --name $name --idle 2
for _ in $(seq 30); do
    sleep 1
    "$machine" status --name $name >/dev/null || break
done
"$machine" status --name $name >/dev/null && broken "an idle machine ends"
kept "an idle machine ends"
