#!/usr/bin/env bash
# docker.sh HUSK BUSYBOX [SCENARIO...]: what users do with Docker, each with runc first, as the oracle, and then with husk.
# Output and exit status must be the same.
#   HUSK      the program under test
#   BUSYBOX   an unpacked root filesystem, of which the image is made: no registry is asked
#   SCENARIO  names (all by default); `list` shows them
# Runs as root on a machine whose KVM runs guests and on which no dockerd runs (the emulated machine). Starts its own
# containerd and dockerd, and ends them. Prints one line a scenario; exit status 1 if one differs.
set -uo pipefail
husk=$1 busybox=$2; shift 2
work=$(mktemp -d /var/tmp/husk-docker.XXXXXX)
limit=${LIMIT:-120}

# -- scenarios: $R chooses the runtime, $N is a prefix for names, $W a directory. What they print is compared.

run_status() {
    docker run --rm $R busybox echo hello
    docker run --rm $R busybox sh -c 'exit 7'; echo "status $?"
    docker run --rm $R busybox /no/such/program; echo "status $?"
    docker run --rm $R busybox /etc/passwd; echo "status $?"
    docker run --rm $R busybox sh -c 'kill -9 $$'; echo "status $?"
}
run_streams() {
    echo "through stdin" | docker run -i --rm $R busybox cat
    docker run --rm $R busybox sh -c 'echo out; echo err >&2' 2>/dev/null
    docker run --rm $R busybox sh -c 'seq 1 20000' | cksum
    docker run -t --rm $R busybox sh -c 'tty; stty size; echo line'
}
run_process() {
    docker run --rm $R -e ONE=1 -e TWO="a b" -w /tmp -u 1000:1001 --group-add 7 busybox sh -c 'id; pwd; echo $ONE $TWO'
    docker run --rm $R --hostname some.host --add-host other:192.0.2.7 busybox sh -c 'hostname; grep other /etc/hosts'
    docker run --rm $R --dns 192.0.2.53 --dns-search example busybox grep -v '^#' /etc/resolv.conf
    docker run --rm $R --init busybox sh -c 'cat /proc/1/comm'
}
run_files() {
    mkdir -p $W/dir; echo file >$W/file; echo inside >$W/dir/x
    docker run --rm $R -v $W/dir:/d -v $W/file:/f:ro --tmpfs /t:size=1m busybox sh -c \
        'cat /d/x /f; echo new >/d/y; echo no 2>/dev/null >/f || echo "read-only file"; df -k /t | tail -1 | awk "{print \$2}"'
    cat $W/dir/y
    docker run --rm $R --read-only busybox sh -c 'touch /x 2>&1; echo $?'
    docker volume create $N-v >/dev/null
    docker run --rm $R -v $N-v:/v busybox sh -c 'echo kept >/v/file'
    docker run --rm $R -v $N-v:/v busybox cat /v/file
    docker volume rm $N-v >/dev/null
}
run_rights() {
    docker run --rm $R busybox grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status
    docker run --rm $R --cap-drop ALL --cap-add CHOWN busybox grep ^CapEff /proc/self/status
    docker run --rm $R --security-opt no-new-privileges busybox grep ^NoNew /proc/self/status
    docker run --rm $R --security-opt seccomp=unconfined busybox grep ^Seccomp: /proc/self/status
    docker run --rm $R --ulimit nofile=100:200 busybox sh -c 'ulimit -n; ulimit -Hn'
    docker run --rm $R --sysctl net.core.somaxconn=123 busybox cat /proc/sys/net/core/somaxconn
}
run_limits() {
    docker run --rm $R --memory 64m --pids-limit 50 --cpus 1 busybox sh -c \
        'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max'
}
network_none() { docker run --rm $R --network none busybox sh -c 'ls /sys/class/net; ip route'; }
network_host() { [ $RUNTIME = runc ] || docker run --rm $R --network host busybox true 2>&1 | grep -o 'docker run --network bridge'; [ $RUNTIME = husk ] || echo 'docker run --network bridge'; }
network_bridge() {
    docker run --rm $R busybox sh -c "$LOOK"
    docker run --rm $R busybox sh -c 'ping -c 1 -w 9 $(ip route | sed -n "s/default via \([^ ]*\).*/\1/p") >/dev/null && echo pong'
}
network_user() {
    docker network create --subnet 10.77.0.0/24 $N-net >/dev/null
    docker run -d --rm $R --name $N-a --network $N-net --network-alias alias busybox httpd -f -p 80 -h /etc >/dev/null
    docker run --rm $R --network $N-net busybox sh -c "cat /etc/resolv.conf | grep nameserver
        nslookup -type=a $N-a 2>&1 | grep ^Address | tail -1; nslookup -type=a alias 2>&1 | grep ^Address | tail -1
        nc -l -p 53 </dev/null & sleep 0.5; kill %1 && echo port 53 is free
        wget -q -O - http://$N-a/hostname | wc -c; ping -c 1 -w 9 $N-a >/dev/null && echo pong"
    docker exec $N-a nslookup -type=a $N-a 2>&1 | grep ^Address | tail -1
    docker rm -f $N-a >/dev/null
    docker network rm $N-net >/dev/null
}
network_external_names() {
    # A server outside of the container's networks, which the resolver asks from within the container's namespace.
    ip addr add 192.0.2.1/32 dev lo
    python3 "$work/dns.py" 192.0.2.1 & server=$!
    docker network create $N-net >/dev/null
    docker run --rm $R --dns 192.0.2.1 --network $N-net busybox sh -c 'for i in 1 2 3; do nslookup -type=a out.example 2>&1 | grep ^Address | tail -1; done'
    docker network rm $N-net >/dev/null
    kill $server; ip addr del 192.0.2.1/32 dev lo
}
network_publish() {
    docker run -d --rm $R --name $N-p -p 127.0.0.1:7480:80 -p 7481:81/udp busybox sh -c 'echo published >/tmp/index.html; udpsvd -E 0 81 echo datagram & httpd -f -p 80 -h /tmp' >/dev/null
    until_true "curl -sf http://127.0.0.1:7480/"
    curl -s http://127.0.0.1:7480/
    echo x | socat -t 3 - UDP:127.0.0.1:7481
    for i in $(seq 20); do curl -s http://127.0.0.1:7480/ & done | sort | uniq -c
    docker rm -f $N-p >/dev/null
}
network_connect() {
    docker network create --subnet 10.78.0.0/24 $N-net >/dev/null
    docker run -d --rm $R --name $N-c busybox sleep 1000 >/dev/null
    docker run -d --rm $R --name $N-d --network $N-net busybox sleep 1000 >/dev/null
    docker exec $N-c ls /sys/class/net
    docker network connect $N-net $N-c
    sleep 1
    docker exec $N-c sh -c "$LOOK"
    docker exec $N-c nslookup -type=a $N-d 2>&1 | grep ^Address | tail -1
    docker exec $N-c ping -c 1 -w 9 $N-d >/dev/null && echo pong
    docker network disconnect $N-net $N-c
    sleep 1
    docker exec $N-c ls /sys/class/net
    docker network connect $N-net $N-c
    sleep 1
    docker exec $N-c ping -c 1 -w 9 $N-d >/dev/null && echo pong again
    docker rm -f $N-c $N-d >/dev/null
    docker network rm $N-net >/dev/null
}
life() {
    docker run -d $R --name $N-l busybox sh -c 'trap "echo term; exit 5" TERM; echo begun; while :; do sleep 1; done' >/dev/null
    docker exec $N-l echo exec
    docker exec -e A=b -w /tmp -u 7 $N-l sh -c 'id -u; pwd; echo $A'
    echo in | docker exec -i $N-l cat
    docker exec $N-l sh -c 'exit 3'; echo "status $?"
    docker top $N-l | tail -n +2 | wc -l
    docker pause $N-l >/dev/null; docker inspect -f '{{.State.Status}}' $N-l; docker unpause $N-l >/dev/null
    docker rename $N-l $N-m; docker inspect -f '{{.State.Running}}' $N-m
    docker update --pids-limit 77 $N-m >/dev/null; docker exec $N-m cat /sys/fs/cgroup/pids.max
    docker stop -t 20 $N-m >/dev/null; docker wait $N-m
    docker logs $N-m
    docker start $N-m >/dev/null; docker kill $N-m >/dev/null; docker wait $N-m
    docker rm $N-m >/dev/null
}
copy() {
    docker run -d $R --name $N-k busybox sh -c 'echo of the container >/tmp/out; sleep 1000' >/dev/null
    echo of the host >$W/in
    docker cp $W/in $N-k:/tmp/in >/dev/null 2>&1
    docker exec $N-k cat /tmp/in
    docker stop -t 1 $N-k >/dev/null
    docker cp $N-k:/tmp/out - 2>/dev/null | tar xO
    docker rm -f $N-k >/dev/null
}
restart_and_health() {
    docker run -d $R --name $N-h --health-cmd 'test -e /tmp/up' --health-interval 1s busybox sh -c 'touch /tmp/up; sleep 1000' >/dev/null
    until_true "docker inspect -f '{{.State.Health.Status}}' $N-h | grep -x healthy"
    docker inspect -f '{{.State.Health.Status}}' $N-h
    docker rm -f $N-h >/dev/null
    docker run -d $R --name $N-r --restart on-failure:2 busybox sh -c 'echo once; exit 1' >/dev/null
    until_true "[ \$(docker inspect -f '{{.RestartCount}} {{.State.Running}}' $N-r | tr -d ' ') = 2false ]"
    docker logs $N-r
    docker rm -f $N-r >/dev/null
}
all="run_status run_streams run_process run_files run_rights run_limits network_none network_host network_bridge network_user
    network_external_names network_publish network_connect life copy restart_and_health"

# -- how they are run

LOOK='for i in $(ls /sys/class/net); do ip -4 addr show dev $i | sed -n "s/^ *\(inet [^ ]*\).*/\1/p"; cat /sys/class/net/$i/mtu; done; ip route | sed "s/ *$//" | sort'
export LOOK

until_true() {
    for _ in $(seq 300); do
        eval "$1" >/dev/null 2>&1 && return
        sleep 0.2
    done
    echo "never: $1"
}

# One scenario with one runtime: what it printed, in which addresses that Docker hands out anew each time look the same.
run_one() {
    export RUNTIME=$2 R="--runtime $2" N=s-$1 W=$work/$1-$2
    mkdir -p "$W"
    timeout --foreground "$limit" bash -c "$1; true" >"$work/$1.$2" 2>"$work/$1.$2.err" </dev/null
    echo "status $?" >>"$work/$1.$2"
    docker rm -f $(docker ps -aq) >/dev/null 2>&1
    docker network prune -f >/dev/null 2>&1
}

start_daemons() {
    install "$husk" /usr/local/bin/husk
    mkdir -p "$work/docker" /etc/docker
    printf '{"runtimes":{"husk":{"path":"/usr/local/bin/husk"}},"data-root":"%s","exec-opts":["native.cgroupdriver=cgroupfs"]}' \
        "$work/docker" >"$work/daemon.json"
    containerd >"$work/containerd.log" 2>&1 & containerd=$!
    until_true "test -S /run/containerd/containerd.sock"
    dockerd --config-file "$work/daemon.json" --containerd /run/containerd/containerd.sock >"$work/dockerd.log" 2>&1 &
    dockerd=$!
    trap 'kill $dockerd; wait $dockerd; kill $containerd; wait $containerd; rm -rf "$work"' EXIT
    until_true "docker info"
    tar -C "$busybox" -c . | docker import - busybox >/dev/null
    cat >"$work/dns.py" <<'PY'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
while True:
    q, who = s.recvfrom(4096)
    end = q.index(b"\0", 12) + 5
    a = q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:end] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([198, 51, 100, 7])
    s.sendto(a, who)
PY
}

[ "${1-}" = list ] && { echo $all; exit; }
start_daemons
for name in $all; do export -f "$name"; done
export -f until_true; export work
wrong=0
for name in ${*:-$all}; do
    run_one "$name" runc
    begun=$(date +%s%N)
    run_one "$name" husk
    took=$((($(date +%s%N) - begun) / 1000000))
    if cmp -s "$work/$name.runc" "$work/$name.husk"; then
        echo "ok        $name ($took ms)"
    else
        wrong=$((wrong + 1))
        echo "DIFFERENT $name (runc left, husk right; then what husk said on stderr)"
        diff -y -W 160 "$work/$name.runc" "$work/$name.husk"
        cat "$work/$name.husk.err"
    fi
done
[ $wrong = 0 ] || { echo "$wrong differ"; exit 1; }
