# Sourced: runs scenarios with runc and then with husk, and compares what they print and their exit status.
# With KEEP=1 what runc did the last time is taken for what it does.
# A scenario is a function of scenarios/*.sh. It finds
#   $C        the caller's program: docker or podman        $RUNTIME  the runtime, which `run` and `create` below use
#   $N        a prefix for names                            $W        a directory of its own
#   run, create: the caller's verbs with the runtime        until_true COMMAND: waits for it
# What a scenario prints on stderr is shown when it differs, and not compared. The caller's script gives `new_container VERB
# WORDS...` (a run or create with $RUNTIME) and `sweep` (removes all that a scenario may have left).

run() { new_container run "$@"; }
create() { new_container create "$@"; }
until_true() {
    local _
    for _ in $(seq 300); do
        eval "$1" >/dev/null 2>&1 && return
        sleep 0.2
    done
    echo "never: $1"
}
# Names and addresses of this machine's making, so that two runs of a scenario look alike.
plain_addresses() { sed -E 's/([0-9]+\.[0-9]+\.[0-9]+)\.[0-9]+/\1.x/g'; }

# What exists: a run of a scenario must not add to it. Daemons may have opened what they need for their first container.
# Podman's service keeps the monitor of a process that it ran for its caller five minutes longer, so that its status can be asked.
census() {
    ps -eo args= | grep -vE 'conmon .* --exit-delay[ =]' | grep -vE '^(ps|grep|sed|find|ls|bash|sleep|awk)( |$)|^\[' | sed -E 's/ +$//'
    awk '{ print "mount " $5 }' /proc/self/mountinfo
    ls /sys/class/net | sed 's/^/link /'
    ls /run/netns 2>/dev/null | sed 's/^/namespace /'
    find /sys/fs/cgroup -mindepth 2 -type d | sed 's/^/cgroup /'
    find "$work" /run -maxdepth 6 \( -name data -o -name storage \) -prune -o -name state.json -print | sed 's/^/state /'
}
settled() { # BEFORE: waits until there is nothing that was not there before; prints what is
    local left now until=$((SECONDS + 10))
    while [ $SECONDS -lt $until ]; do
        now=$(census)
        left=$(comm -13 <(sort <<<"$1") <(sort <<<"$now"))
        [ -n "$left" ] || return
        sleep 0.2
    done
    sed 's/^/left: /' <<<"$left"
}

one() { # SCENARIO RUNTIME: into $work/SCENARIO.RUNTIME
    local before status kept=/var/tmp/husk-callers-kept/$C-$1
    export RUNTIME=$2 N=s-${1//_/-} W=$work/$1-$2
    if [ "$2" = runc ] && [ -n "${KEEP-}" ] && [ -e "$kept" ]; then
        cp "$kept" "$work/$1.runc"
        return
    fi
    mkdir -p "$W"
    before=$(census)
    timeout --foreground "${LIMIT:-600}" bash -c 'for file in "$SCENARIOS"/*.sh; do . "$file"; done; "$0"; true' "$1" \
        >"$work/$1.$2" 2>"$work/$1.$2.err" </dev/null
    status=$?
    echo "status $status" >>"$work/$1.$2"
    # Scenarios clean up after themselves, if they get that far.
    { [ $status = 0 ] && [ -z "$($C ps -aq)" ]; } || sweep >/dev/null 2>&1
    case $2 in
    # What its runs leave is what the daemons keep.
    runc) [ -z "${KEEP-}" ] || { mkdir -p "${kept%/*}" && cp "$work/$1.runc" "$kept"; } ;;
    *) settled "$before" >>"$work/$1.$2" ;;
    esac
}

compare() { # SCENARIO...: exit status 1 if one differs
    local name runtime begun wrong=0
    # conmon leaves files where its caller was.
    cd "$work/tmp"
    export SCENARIOS=$here/scenarios C work
    export -f run create new_container build_image compose_command until_true plain_addresses
    for name; do
        one "$name" runc
        for runtime in ${RUNTIMES:-husk}; do
            begun=$(date +%s%N)
            one "$name" "$runtime"
            if cmp -s "$work/$name.runc" "$work/$name.$runtime"; then
                echo "ok        $C $runtime $name ($((($(date +%s%N) - begun) / 1000000)) ms)"
                [ -z "${SHOW-}" ] || cat "$work/$name.$runtime"
            else
                wrong=$((wrong + 1))
                echo "DIFFERENT $C $runtime $name (runc left, husk right; then what it said on stderr)"
                diff -y -W 160 "$work/$name.runc" "$work/$name.$runtime"
                tail -n 30 "$work/$name.$runtime.err"
            fi
        done
    done
    [ $wrong = 0 ] || { echo "$wrong differ"; return 1; }
}
