# Containers that share namespaces. Those of husk are machines, which can share a network namespace's interfaces with nobody and
# another container's processes even less: refused in words, and nothing is left.

refused() { # WORDS COMMAND...: the words stand in what it says, and it fails
    local words=$1; shift
    if "$@" >$W/refused 2>&1; then echo "not refused"; else grep -o "$words" $W/refused | head -n 1; fi
}
pod() {
    run -d --name $N-x busybox sleep 1000 >/dev/null
    case $RUNTIME in
    runc) for _ in 1 2 3 4; do echo "a container that shares"; done ;;
    *)
        for what in pid ipc uts network; do
            refused "$what.*" run --rm --$what container:$N-x busybox true >&2 && echo "a container that shares"
        done
        ;;
    esac
    $C rm -f -t 0 $N-x >/dev/null
}
kube() {
    cat >$W/pod.yaml <<'END'
apiVersion: v1
kind: Pod
metadata:
  name: project
spec:
  restartPolicy: Never
  containers:
    - name: one
      image: localhost/busybox
      command: [sh, -c, "echo of a pod"]
END
    case $RUNTIME in
    runc) echo refused ;;
    *) $C --runtime $RUNTIME play kube $W/pod.yaml >$W/said 2>&1 && echo "not refused" || { cat $W/said >&2; echo refused; } ;;
    esac
    $C play kube --down $W/pod.yaml >/dev/null 2>&1
}
