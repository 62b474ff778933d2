# A container that lives a while, and what is done with it meanwhile.

life() {
    run -d --name $N-l busybox sh -c 'trap "echo term; exit 5" TERM; echo begun; while :; do sleep 0.2; done' >/dev/null
    $C exec -e A=b -w /tmp -u 7 $N-l sh -c 'id -u; pwd; echo $A'
    echo in | $C exec -i $N-l cat
    $C exec $N-l sh -c 'exit 3'; echo "status $?"
    # Docker prints the runtime's own words on stdout.
    $C exec $N-l /no/such/program 2>&1 | grep -o 'no such file or directory' | head -n 1; echo "status ${PIPESTATUS[0]}"
    $C exec -d $N-l touch /tmp/detached >/dev/null; until_true "$C exec $N-l test -e /tmp/detached"
    # Podman's top enters the namespaces of the process that it sees, where a guest's processes are not.
    case $C-$RUNTIME in
    podman-husk) echo "top shows processes" ;;
    *) [ $($C top $N-l | tail -n +2 | wc -l) -gt 0 ] && echo "top shows processes" ;;
    esac
    $C stats --no-stream --format '{{.MemUsage}}' $N-l | grep -vc '^0'
    $C pause $N-l >/dev/null; $C inspect -f '{{.State.Status}}' $N-l
    $C exec $N-l true 2>/dev/null; [ $? != 0 ] && echo "no exec while paused"
    $C unpause $N-l >/dev/null
    $C rename $N-l $N-m; $C inspect -f '{{.State.Running}}' $N-m
    $C update --pids-limit 77 --memory 200m --memory-swap 200m $N-m >/dev/null
    $C exec $N-m cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max
    $C stop -t 20 $N-m >/dev/null; $C wait $N-m
    $C logs $N-m
    $C start $N-m >/dev/null; $C kill $N-m >/dev/null; $C wait $N-m
    $C rm $N-m >/dev/null
}
attach_and_events() {
    local since
    since=$(date +%s)
    run -d --rm --name $N-e -i busybox sh -c 'read line; echo "got $line"; exit 4' >/dev/null
    # Docker stops showing output when what it reads has ended.
    { echo word; $C wait $N-e >/dev/null; } | $C attach $N-e; echo "status $?"
    sleep 1
    recent_events --since $since --filter container=$N-e --format "$EVENT" | grep -vE '^(cleanup|remove|destroy|init|attach|sync)$'
}
copy() {
    run -d --name $N-k busybox sh -c 'echo of the container >/home/out; sleep 1000' >/dev/null
    echo of the host >$W/in
    until_true "$C exec $N-k test -s /home/out"
    case $C-$RUNTIME in
    podman-husk)
        # Podman enters the mounts of the process that it sees, and the container's are not among them: it fails, and touches nothing.
        $C cp $W/in $N-k:/home/in >/dev/null 2>&1 && echo "copied in, to somewhere"
        $C cp $N-k:/home/out - >/dev/null 2>&1 && echo "copied out, from somewhere"
        $C exec -i $N-k sh -c 'cat >/home/in; cat /home/in /home/out' <$W/in
        ;;
    *)
        $C cp $W/in $N-k:/home/in >/dev/null 2>&1
        $C exec $N-k cat /home/in
        $C cp $N-k:/home/out - | tar xO
        ;;
    esac
    $C stop -t 1 $N-k >/dev/null
    $C cp $N-k:/home/out - | tar xO
    $C diff $N-k | grep home | sort
    $C rm -f $N-k >/dev/null
}
restart() {
    run -d --name $N-r --restart on-failure:2 busybox sh -c 'echo once; exit 1' >/dev/null
    until_true "[ \$($C inspect -f '{{.RestartCount}} {{.State.Running}}' $N-r | tr -d ' ') = 2false ]"
    $C logs $N-r
    $C restart -t 0 $N-r >/dev/null; $C wait $N-r
    $C rm -f $N-r >/dev/null
}
health() {
    run -d --name $N-h --health-cmd 'test -e /tmp/up' --health-interval $HEALTH_INTERVAL --health-retries 1 busybox sh -c 'touch /tmp/up; sleep 1000' >/dev/null
    until_true "$HEALTH_CHECK; $C inspect -f '{{.State.Health.Status}}' $N-h | grep -x healthy"
    $C inspect -f '{{.State.Health.Status}}' $N-h
    $C exec $N-h rm /tmp/up
    until_true "$HEALTH_CHECK; $C inspect -f '{{.State.Health.Status}}' $N-h | grep -x unhealthy"
    $C inspect -f '{{.State.Health.Status}}' $N-h
    $C rm -f -t 0 $N-h >/dev/null 2>&1 || $C rm -f $N-h >/dev/null
}
