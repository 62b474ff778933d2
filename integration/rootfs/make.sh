#!/bin/bash
# make.sh busybox|debian|work [DIR]: a root filesystem for tests. Prints the path of a tar archive; with DIR, unpacks it there
# as well (DIR must not exist; as root, so that owners and device nodes are right). Beside the archive stands the same
# as an ext4 image, rootfs.img: unpacking Debian takes most of a minute in the emulated machine, `machine up --disk` none.
#
#   busybox  Debian's static busybox, a few users and groups, empty directories: starts in no time
#   debian   Debian trixie with apt, dpkg, perl, gcc, make, attr, acl, procps: real programs
#   work     Debian trixie with git, fio, stress-ng, Python and its test modules, and in /srv/mirror a package mirror
#
# Owners in the archives are numbers. Made once per (suite, function that makes it) and kept in ${XDG_CACHE_HOME:-~/.cache}/husk/rootfs;
# the same path is good inside the emulated machine. Takes root (or sudo) for mmdebstrap.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"

suite=${SUITE:-trixie}
kind=${1:-}
case $kind in
busybox | debian | work) ;;
*) say "usage: make.sh busybox|debian|work [DIR]"; exit 2 ;;
esac

make_busybox() {
    local mirror applet
    mirror=$(debian_mirror) || return
    say "busybox-static of $suite from $mirror"
    as_root mmdebstrap --quiet --variant=extract --include=busybox-static "$suite" package "$mirror" || return
    mkdir -p root/{bin,dev,etc,home/user,lib,mnt,opt,proc,root,run,sbin,srv,sys,tmp,usr/bin,usr/sbin,var/log,var/tmp} || return
    cp -L package/usr/bin/busybox root/bin/busybox || return
    root/bin/busybox --list-full | while read -r applet; do
        [ -e "root/$applet" ] || ln -s /bin/busybox "root/$applet"
    done
    cat >root/etc/passwd <<'END'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
user:x:1000:1000:user:/home/user:/bin/sh
other:x:1001:1001:other:/tmp:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
END
    # `user` is in groups beside its own: what a runtime must find for "user" and must not for "1000:1000".
    cat >root/etc/group <<'END'
root:x:0:
daemon:x:1:
bin:x:2:
adm:x:4:user
tty:x:5:
disk:x:6:root
audio:x:29:user,other
users:x:100:
user:x:1000:
other:x:1001:
nogroup:x:65534:
END
    printf '%s\n' '127.0.0.1 localhost' '::1 localhost' >root/etc/hosts
    printf '%s\n' 'NAME="husk test busybox"' 'ID=busybox' >root/etc/os-release
    echo 'export PS1="\w # "' >root/etc/profile
    chmod 755 root && chmod 700 root/root && chmod 1777 root/tmp root/var/tmp || return
    # Not owned by whoever makes it: root, but for the home directory of a user.
    (cd root && find . -path ./home/user -prune -o -print0) | LC_ALL=C sort -z |
        tar -C root -c -f rootfs.tar --null --no-recursion -T - --owner=0 --group=0 --numeric-owner --mtime=@0 || return
    tar -C root -r -f rootfs.tar --owner=1000 --group=1000 --numeric-owner --mtime=@0 ./home/user || return
    as_root rm -rf package root
    make_image 256M
}

make_debian() {
    local mirror
    mirror=$(debian_mirror) || return
    say "$suite from $mirror"
    as_root mmdebstrap --quiet --variant=apt --include=perl,gcc,libc6-dev,make,attr,acl,procps \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" rootfs.tar "$mirror" || return
    as_root chown "$(id -u):$(id -g)" rootfs.tar && make_image 8G
}

# What real work takes. stress-ng is linked with libraries of displays, which load others when they are used, and here they
# are not: those, 200 MB of compilers, stay out.
make_work() {
    local mirror
    mirror=$(debian_mirror) || return
    say "$suite with tools from $mirror"
    as_root mmdebstrap --quiet --variant=apt --include='git,fio,stress-ng,python3,?name(^libpython3\.[0-9]+-testsuite$)' \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/lib/*/libLLVM*' \
        --dpkgopt='path-exclude=/usr/lib/*/libgallium*' --dpkgopt='path-exclude=/usr/lib/*/libz3*' \
        --customize-hook="$(declare -f make_mirror); make_mirror \"\$1\" bc sgml-base xml-core" \
        "$suite" rootfs.tar "$mirror" || return
    as_root chown "$(id -u):$(id -g)" rootfs.tar && make_image 8G
}

# A mirror of the packages $2... in $1/srv/mirror, made while apt's lists are there. Runs inside mmdebstrap.
make_mirror() (
    set -e
    mkdir -p "$1/srv/mirror"
    cd "$1/srv/mirror"
    root=$1
    shift
    chroot "$root" sh -c 'cd /srv/mirror && apt-get -qq -o APT::Sandbox::User=root download "$@"' - "$@"
    for package in *.deb; do
        dpkg-deb --field "$package"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$package" "$(stat -c %s "$package")" "$(sha256sum "$package" | cut -d' ' -f1)"
    done >Packages
)

# rootfs.img of the size $1 (sparse) from rootfs.tar; no journal, because it is written through throw-away layers only.
make_image() {
    as_root mkdir image && as_root tar -C image -x -p --numeric-owner --xattrs --xattrs-include='*' -f rootfs.tar &&
        truncate -s "$1" rootfs.img && as_root mke2fs -q -t ext4 -O ^has_journal -m 0 -d image rootfs.img &&
        as_root rm -rf image
}

key=$({ declare -f "make_$kind" make_mirror make_image; echo "$suite"; } | sha256sum | cut -c1-16)
dir=$HUSK_CACHE/rootfs/$kind-$key
cached "$dir" "make_$kind"
if [ -n "${2:-}" ]; then
    mkdir "$2"
    as_root tar -C "$2" -x -p --numeric-owner --xattrs --xattrs-include='*' -f "$dir/rootfs.tar"
fi
echo "$dir/rootfs.tar"
