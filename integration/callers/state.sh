# Sourced first by a caller's script, with its name in $caller: runs the rest of it in a state of its own. Namespaces for
# processes, mounts, links and cgroups, and one directory, $work: the daemons of this machine are not disturbed, and a run
# that is killed leaves no process, bridge, rule or mount, because its namespaces end with it. What is left of an
# earlier run, empty cgroups and files, goes before this one begins.
work=/var/tmp/husk-$caller group=/sys/fs/cgroup/husk-$caller
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Ends all that is in the cgroups, and takes these away.
clear_group() {
    local _
    for _ in $(seq 50); do
        [ -d "$group" ] || return 0
        echo 1 >"$group/cgroup.kill"
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
        sleep 0.1
    done
    echo "cgroups are left: $(find "$group" -type d)"
    return 1
}
if [ "${OWN_STATE-}" != "$caller" ]; then
    for controller in cpu memory pids io cpuset; do echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control; done 2>/dev/null
    clear_group || exit 1
    rm -rf --one-file-system "$work"
    mkdir -p "$work/bin" "$work/tmp" "$group"
    # The parent stays where it is, so that whoever ends it by its cgroup or its pid ends all.
    OWN_STATE=$caller unshare --pid --fork --kill-child --mount --net bash -c '
        echo $$ >"$0/cgroup.procs" && exec unshare --cgroup bash "$@"' "$group" "$(realpath "$0")" "$@"
    status=$?
    clear_group || exit 1
    rm -rf --one-file-system "$work"
    exit "$status"
fi
# In the cgroup that is the root here no process may be, or no controller can be handed on.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/script
echo $$ >/sys/fs/cgroup/script/cgroup.procs
for place in /run/netns /run/docker /run/containers /run/containerd /etc/cni /var/lib/cni; do
    [ ! -d $place ] || mount -t tmpfs tmpfs $place
done
# Many guests that boot at a time on one emulated processor take their time.
if [ -n "${HUSK_EMULATED-}" ]; then
    mkdir -p /etc/husk
    mount -t tmpfs tmpfs /etc/husk
    printf '[machine]\nboot_timeout_ms = 120000\n' >/etc/husk/config.toml
fi
ip link set lo up
sysctl -qw net.ipv4.ip_forward=1
export TMPDIR=$work/tmp PATH=$work/bin:$PATH
