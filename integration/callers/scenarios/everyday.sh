# A little of everything, in as few steps as show it: what `make test` does with each caller.

everyday() {
    mkdir -p $W/www; echo page >$W/www/index.html
    $C network create $N-net >/dev/null
    run -d --name $N-a --network $N-net -p 127.0.0.1:7480:80 -v $W/www:/www:ro --memory 100m busybox sh -c \
        'trap "echo term; exit 5" TERM; httpd -p 80 -h /www; while :; do sleep 0.2; done' >/dev/null
    echo "through stdin" | run --rm -i --network $N-net -u 1000:1001 -w /tmp -e A="b c" --read-only --tmpfs /tmp --hostname some.host \
        busybox sh -c "cat; id; pwd; echo \$A; hostname; wget -q -O /tmp/page http://$N-a/ && cat page; touch /x 2>&1; echo err >&2; exit 7" 2>$W/err
    echo "status $?"; cat $W/err
    curl -s http://127.0.0.1:7480/
    $C exec -u 7 $N-a sh -c 'id -u; cat /sys/fs/cgroup/memory.max; exit 3'; echo "status $?"
    $C stop -t 20 $N-a >/dev/null; $C wait $N-a
    $C logs $N-a
    $C rm $N-a >/dev/null
    $C network rm $N-net >/dev/null
}
