# What `run` does, and the options that say how the process begins.

run_status() {
    run --rm busybox echo hello
    run --rm busybox sh -c 'exit 7'; echo "status $?"
    run --rm busybox /no/such/program; echo "status $?"
    run --rm busybox /etc/passwd; echo "status $?"
    run --rm busybox sh -c 'kill -9 $$'; echo "status $?"
}
run_streams() {
    echo "through stdin" | run -i --rm busybox cat
    run --rm busybox sh -c 'echo out; echo err >&2; seq 1 20000 | cksum; seq 1 20000 >&2' 2>$W/err
    cksum <$W/err
    run -t --rm busybox sh -c 'tty; stty size; echo line'
}
run_terminal() {
    # A terminal all the way: its size, what is typed, its end.
    (sleep 20; echo 'stty size; id -u; exit 5') | SHELL=/bin/bash script -qec 'stty rows 33 cols 99; run -it --rm busybox sh' /dev/null | tr -d '\r' | grep -E '^(33 99|0)$'
    echo "status ${PIPESTATUS[1]}"
}
run_process() {
    run --rm -e ONE=1 -e TWO="a b" -w /tmp -u 1000:1001 --group-add 7 --hostname some.host --add-host other:192.0.2.7 \
        --dns 192.0.2.53 --dns-search example --init busybox sh -c \
        'id; pwd; echo $ONE $TWO; hostname; grep other /etc/hosts; grep -v "^#" /etc/resolv.conf; [ $$ -gt 1 ] && cat /proc/1/comm'
}
run_files() {
    mkdir -p $W/dir; echo file >$W/file; echo inside >$W/dir/x
    run --rm -v $W/dir:/d -v $W/file:/f:ro --tmpfs /t:size=1m busybox sh -c \
        'cat /d/x /f; echo new >/d/y; echo no 2>/dev/null >/f || echo "read-only file"; df -k /t | tail -1 | awk "{print \$2}"'
    cat $W/dir/y
    run --rm --read-only busybox sh -c 'touch /x 2>&1; echo $?'
    $C volume create $N-v >/dev/null
    run --rm -v $N-v:/v busybox sh -c 'echo kept >/v/file'
    run --rm -v $N-v:/v busybox cat /v/file
    $C volume rm $N-v >/dev/null
}
run_rights() {
    run --rm --ulimit nofile=100:200 --sysctl net.core.somaxconn=123 --device /dev/fuse busybox sh -c \
        "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; ulimit -n; ulimit -Hn; cat /proc/sys/net/core/somaxconn; ls -l /dev/fuse | cut -c1-10"
    run --rm --cap-drop ALL --cap-add CHOWN --security-opt no-new-privileges --security-opt seccomp=unconfined busybox \
        grep -E '^(CapEff|NoNew|Seccomp:)' /proc/self/status
}
run_privileged() {
    # All of the rights, in both; the host's devices in neither (here only husk's list is looked at).
    run --rm --privileged busybox sh -c "grep -E '^(CapEff|NoNew|Seccomp:)' /proc/self/status; mount -t tmpfs none /mnt && echo mounted"
    [ $RUNTIME = runc ] && echo 0 || run --rm --privileged busybox sh -c 'ls /dev/vda /dev/kvm /dev/sda /dev/loop0 2>/dev/null | wc -l'
}
run_limits() {
    run --rm --memory 64m --pids-limit 50 --cpus 1 busybox sh -c \
        'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max'
    # What takes more than it may is killed. Why, hears only husk's own shim: other callers look for it among the kills of the
    # host's kernel, and this was the guest's.
    run --name $N-o --memory 32m busybox tail /dev/zero; echo "status $?"
    case $RUNTIME in husk) echo true ;; *) $C inspect -f '{{.State.OOMKilled}}' $N-o ;; esac
    $C rm $N-o >/dev/null
}
