# Docker inside of a container. The programs are this machine's own, bound in.

programs_image() {
    mkdir -p $W/root/{dev,etc,proc,root,run,sys,tmp,usr,var/lib/docker,work}
    for name in bin lib lib64 sbin; do ln -s usr/$name $W/root/$name; done
    ln -s ../run $W/root/var/run
    cp -a /etc/{alternatives,group,nsswitch.conf,passwd} $W/root/etc/
    tar -C $W/root -c . | $C import - programs >/dev/null
}
# Its client, with the daemon's socket: what makes images and looks after other containers.
docker_socket() {
    programs_image
    run --rm --name $N-s --network none -v /usr:/usr:ro -v ${DOCKER_HOST#unix://}:/run/docker.sock programs sh -c \
        "docker ps --format '{{.Names}} {{.Image}}'; docker run --rm --network none busybox echo from the daemon; echo through | docker run -i --rm --network none busybox cat; docker inspect -f '{{.State.Status}}' $N-s; docker wait none 2>/dev/null; echo status \$?"
    $C rmi programs >/dev/null
}
# All of it: its daemon, storage, bridge, rules and containers.
docker_inside() {
    programs_image
    mkdir $W/work
    tar -C "$BUSYBOX" -cf $W/work/busybox.tar .
    cat >$W/work/script <<'INSIDE'
export PATH=/usr/sbin:/usr/bin
# As in every image of Docker inside: the first cgroup must be empty before controllers can be handed on.
mkdir /sys/fs/cgroup/init
for pid in $(cat /sys/fs/cgroup/cgroup.procs); do echo $pid >/sys/fs/cgroup/init/cgroup.procs; done 2>/dev/null
sed -e 's/ / +/g' -e 's/^/+/' </sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
# By itself the daemon gives containerd 15 seconds to start, which are none in a guest of an emulated machine.
containerd >/work/containerd.log 2>&1 & containerd=$!
until [ -S /run/containerd/containerd.sock ]; do kill -0 $containerd || exit; sleep 0.5; done
dockerd --containerd /run/containerd/containerd.sock >/work/dockerd.log 2>&1 & daemon=$!
until docker info >/dev/null 2>&1; do kill -0 $daemon || exit; sleep 0.5; done
docker info -f '{{.Driver}}, cgroups {{.CgroupVersion}}'
docker import - busybox </work/busybox.tar >/dev/null
docker run --rm busybox sh -c 'echo hello; rm /etc/hosts.allow /home/user -r 2>/dev/null; ls /home; exit 7'; echo "status $?"
gateway=$(ip route | sed -n 's/^default via \([^ ]*\).*/\1/p')
docker network create net >/dev/null
docker run -d --name web --network net -p 8080:80 --memory 20m busybox httpd -f -p 80 -h /etc >/dev/null
docker run --rm --network net busybox sh -c "wget -q -O - http://web/passwd | head -n 1; ping -c 1 -w 20 $gateway >/dev/null && echo out through both"
curl -s http://127.0.0.1:8080/passwd | tail -n 1
docker exec web cat /sys/fs/cgroup/memory.max
printf 'FROM busybox\nRUN echo made >/made && rm -r /home\nRUN mkdir /home && touch /home/new\nCMD cat /made; ls /home\n' >/tmp/Dockerfile
DOCKER_BUILDKIT=0 docker build -q -t made -f /tmp/Dockerfile /tmp >/dev/null && docker run --rm made
docker rm -f web >/dev/null
docker network rm net >/dev/null
docker ps -aq | wc -l
kill $daemon; wait $daemon; echo "daemon $?"
kill $containerd; wait $containerd
INSIDE
    run --rm --privileged -v /usr:/usr:ro -v $W/work:/work -v $N-data:/var/lib/docker programs sh /work/script
    tail -n 30 $W/work/dockerd.log >&2
    $C volume rm $N-data >/dev/null
    $C rmi programs >/dev/null
}
