# Sourced by pods.sh: what pods cost, with runc and with husk, in rounds of one sample of each so that a slow moment of the
# machine hits all alike. Medians, as tables. $1: how many rounds.
rounds=${1:-10}
few=$((rounds / 3 + 1)) # of what takes ten pods
contenders="runc ${RUNTIMES:-${runtimes/stock/}}"
samples=$work/samples
mkdir -p "$samples"

milliseconds() { echo $(($(date +%s%N) / 1000000)); }
printing_pod() { # NAME: from RunPodSandbox to the first byte that its container prints
    pod "$1"
    new "$1" -- sh -c 'echo ready; sleep 1000'
    until [ -s "$work/logs/$1.log" ]; do sleep 0.01; done
}
# The first of each round warms the page cache and is not counted.
keep() { [ "$round" = 0 ] || echo "$2" >>"$samples/$1-$runtime"; }
shim_pss() { # POD: KiB
    local pid
    pid=$(pgrep -f "containerd-shim.* -id $1( |\$)" | head -1)
    awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup"
}
one_pod() {
    local began; began=$(milliseconds)
    printing_pod "one-$round"
    keep one $(($(milliseconds) - began))
    sleep 1
    keep shim "$(shim_pss "$pod")"
    end
    rm -f "$work"/logs/*
}
ten_pods() {
    local began number; began=$(milliseconds)
    for number in $(seq 10); do
        (printing_pod "ten-$round-$number"; echo "$pod" >"$work/pod-$number") &
    done
    wait
    keep ten $(($(milliseconds) - began))
    for number in $(seq 10); do pod=$(cat "$work/pod-$number") && end; done
    rm -f "$work"/logs/*
}
table() { # TITLE UNIT DIVISOR NAME
    local runtime
    printf '## %s\n\n| with | median %s | from - to | ratio |\n|---|---|---|---|\n' "$1" "$2"
    for runtime in $contenders; do
        sort -n "$samples/$4-$runtime" | awk -v name="$runtime" -v divisor="$3" -v one="$(sort -n "$samples/$4-runc" | awk '{ at[NR] = $1 } END { print at[int(NR / 2) + 1] }')" '
            { at[NR] = $1 }
            END { median = at[int(NR / 2) + 1]; printf "| %s | %.2f | %.2f - %.2f | %.2f |\n", name, median / divisor, at[1] / divisor, at[NR] / divisor, median / one }'
    done
    echo
}

for round in $(seq 0 "$rounds"); do
    for runtime in $contenders; do one_pod; done
done
for round in $(seq 0 "$few"); do
    for runtime in $contenders; do ten_pods; done
done
table "pods: from RunPodSandbox to a container's first output, $rounds rounds" s 1000 one
table "pods: ten at once, to the last one's first output, $few rounds" s 1000 ten
table "pods: a shim's own PSS beside an idle container, $rounds rounds" MiB 1024 shim
