# The network as the caller builds it. Addresses that a caller hands out anew each time are compared without their last part.

LOOK='for i in $(ls /sys/class/net); do echo $i $(cat /sys/class/net/$i/mtu); ip -4 addr show dev $i | sed -n "s/^ *\(inet [^ ]*\).*/\1/p"; done; ip route | sed "s/ *$//" | sort'
# The address that a name has, asked in container $1.
address() { $C exec $1 nslookup -type=a $2 2>&1 | grep ^Address | tail -1 | plain_addresses; }

network_none() { run --rm --network none busybox sh -c 'ls /sys/class/net; ip route'; }
network_host() {
    case $RUNTIME in
    runc) run --rm --network host busybox true; echo "$C run --network bridge" ;;
    *) run --rm --network host busybox true 2>&1 | grep -o 'docker run --network bridge' | head -1 | sed "s/docker/$C/" ;;
    esac
}
network_bridge() {
    run --rm busybox sh -c "$LOOK"'; ping -c 1 -w 9 $(ip route | sed -n "s/default via \([^ ]*\).*/\1/p") >/dev/null && echo pong' | plain_addresses
}
network_user() {
    $C network create --subnet 10.77.0.0/24 $N-net >/dev/null
    run -d --rm --name $N-a --network $N-net --network-alias alias busybox httpd -f -p 80 -h /etc >/dev/null
    run --rm --name $N-b --network $N-net busybox sh -c "cat /etc/resolv.conf | grep nameserver
        nslookup -type=a $N-a 2>&1 | grep ^Address | tail -1; nslookup -type=a alias 2>&1 | grep ^Address | tail -1
        nc -l -p 53 </dev/null & sleep 0.5; kill \$! && echo port 53 is free
        wget -q -O - http://$N-a/passwd | wc -l; ping -c 1 -w 9 $N-a >/dev/null && echo pong"
    address $N-a $N-a
    $C rm -f $N-a >/dev/null
    $C network rm $N-net >/dev/null
}
network_external_names() {
    # A server outside of the container's networks, which the resolver asks from within the container's namespace.
    ip addr add 192.0.2.1/32 dev lo
    python3 $SCENARIOS/names.py 192.0.2.1 & server=$!
    $C network create $N-net >/dev/null
    run --rm --dns 192.0.2.1 --network $N-net busybox sh -c 'for i in 1 2 3; do nslookup -type=a out.example 2>&1 | grep ^Address | tail -1; done'
    $C network rm $N-net >/dev/null
    kill $server; ip addr del 192.0.2.1/32 dev lo
}
network_publish() {
    run -d --rm --name $N-p -p 127.0.0.1:7480:80 -p 7481:81/udp busybox sh -c \
        'echo published >/tmp/index.html; udpsvd -E 0 81 echo datagram & httpd -f -p 80 -h /tmp' >/dev/null
    until_true "curl -sf http://127.0.0.1:7480/"
    curl -s http://127.0.0.1:7480/
    echo x | socat -t 3 - UDP:127.0.0.1:7481
    for i in $(seq 20); do curl -s http://127.0.0.1:7480/ & done | sort | uniq -c
    $C rm -f $N-p >/dev/null
}
network_connect() {
    $C network create --subnet 10.78.0.0/24 $N-net >/dev/null
    $C network create --subnet 10.79.0.0/24 $N-first >/dev/null
    run -d --name $N-c --network $N-first busybox sh -c "$WATCH" >/dev/null
    run -d --name $N-d --network $N-net --ip 10.78.0.99 busybox sleep 1000 >/dev/null
    until_true "$C logs $N-c | grep begun"
    network_change connect
    $C exec $N-c sh -c "$LOOK" | plain_addresses
    address $N-c $N-d
    $C exec $N-c ping -c 1 -w 9 $N-d >/dev/null && echo pong
    network_change disconnect
    $C exec $N-c sh -c "$LOOK" | plain_addresses
    network_change connect
    $C exec $N-c ping -c 1 -w 9 $N-d >/dev/null && echo pong again
    $C rm -f $N-c $N-d >/dev/null
    $C network rm $N-net $N-first >/dev/null
}
# What the container runs: it says when it has an address of the second network and when no longer. An exec that looks takes
# longer than what is to be measured.
WATCH='echo begun; while :; do
    now=gone; while read -r line; do case $line in *10.78.0.*) now=there ;; esac; done </proc/net/fib_trie
    [ $now = ${seen-gone} ] || echo $now; seen=$now; sleep 0.05
done'
# Changes the container's networks: the time from the kernel's word of it in the namespace to the container's own.
network_change() { # connect|disconnect
    local monitor lines happened seen took
    nsenter -t $($C inspect -f '{{.State.Pid}}' $N-c) -n ip -ts monitor address >$W/monitor 2>&1 & monitor=$!
    lines=$($C logs $N-c | wc -l)
    sleep 0.5
    $C network $1 $N-net $N-c
    # Asking at once would take the processor from what is to be measured.
    sleep 3
    until_true "[ \$($C logs $N-c | wc -l) -gt $lines ]"
    kill $monitor
    $C logs $N-c | tail -n 1
    happened=$(sed -n 's/^\[\([^]]*\)\].*inet 10\.78\.0\..*/\1/p' $W/monitor | head -n 1)
    seen=$($C logs -t $N-c | tail -n 1 | cut -d' ' -f1)
    took=$((($(date -d "$seen" +%s%N) - $(date -d "$happened" +%s%N)) / 1000000))
    echo "$1: $took ms" >&2
    # The emulated machine is some 25 times slower than a real one.
    [ $took -lt $([ -z "${HUSK_EMULATED-}" ] && echo 1000 || echo 3000) ] && echo "within a second" || echo "after $took ms"
}
