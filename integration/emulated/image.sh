#!/bin/bash
# image.sh: make the disk image, kernel and early modules of the emulated machine; prints the directory that holds them.
#
#   DIR/root.img     ext4, sparse, without a journal: boot it copy-on-write (snapshot=on), never write to it
#   DIR/vmlinux      Debian's kernel, uncompressed: unpacking it is slow in emulation, and QEMU enters an ELF file directly
#   DIR/modules.cpio busybox and the modules up to the root filesystem; `machine` appends init and server to it, so that
#                    a change of those makes no new image
#
# Made once per (suite, package list, this script) and kept in ${XDG_CACHE_HOME:-~/.cache}/husk/emulated. Takes root
# (or sudo). SUITE (default: trixie) is a Debian suite, whose programs the machine has; its kernel is always trixie's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../rootfs/cache.sh"

suite=${SUITE:-trixie}
# The KVM of Linux 7.2 takes what QEMU's emulation leaves behind of a delivered exception for one that is being delivered, and
# ends the guest at its next access to a device.
kernel_suite=trixie
size=24G # sparse; what the machine may write into its private layer
packages=$(sed 's/#.*//' "$here/packages" | tr -s ' \n' ',,' | sed 's/^,//; s/,$//')
key=$(cat "$here/image.sh" "$here/packages" - <<<"$suite" | sha256sum | cut -c1-16)
dir=$HUSK_CACHE/emulated/$key

# The kernel package alone, unpacked and not installed: its installation would build an initramfs that is not used.
# Runs inside mmdebstrap, with its mirror and the kernel's suite in variables; $1 is the root.
kernel_hook='set -e
cd "$1"
mkdir -p tmp/kernel/lists/partial
echo "deb $mirror $kernel_suite main" >tmp/kernel/sources.list
options="-o Dir::Etc::SourceList=/tmp/kernel/sources.list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=/tmp/kernel/lists -o APT::Sandbox::User=root"
chroot . apt-get -qq $options update
meta=$(chroot . apt-cache $options depends --important linux-image-amd64 | sed -n "s/.*Depends: \(linux-image-[0-9]\S*\).*/\1/p" | head -n 1)
chroot . sh -c "cd /tmp/kernel && apt-get -qq $options download $meta"
dpkg-deb -x tmp/kernel/$meta*.deb .
rm -r tmp/kernel'

make_image() {
    local mirror root version early dates
    mirror=$(debian_mirror) || return
    # A suite that still changes has lists that expire; of a mirror that stands still this machine's own settings say so.
    eval "$(apt-config shell dates Acquire::Check-Valid-Until)"
    root=$PWD/root
    say "packages of $suite from $mirror"
    as_root env mirror="$mirror" kernel_suite=$kernel_suite mmdebstrap --quiet --variant=minbase --include="$packages" --customize-hook="$kernel_hook" \
        --aptopt="Acquire::Check-Valid-Until \"${dates:-true}\"" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' "$suite" "$root" "$mirror" || return

    version=$(basename "$root"/usr/lib/modules/*)
    say "kernel $version: unpacking modules"
    unpack_modules "$root" "$version" && unpack_kernel "$root/boot/vmlinuz-$version" vmlinux || return
    early_modules "$root" "$version" || return

    say "root.img"
    as_root rm -rf "$root"/boot/* || return
    truncate -s "$size" root.img
    # No journal: the image is written only through throw-away layers. Small inode ratio: tests walk many small files.
    as_root mke2fs -q -t ext4 -O ^has_journal -i 8192 -m 0 -L husk-emulated -d "$root" root.img || return
    as_root rm -rf "$root"
    say "done: $(du -sh . | cut -f1) on disk"
}

# Compressed modules cost seconds of emulated time at each boot. Hardware that the machine cannot have is left out.
unpack_modules() {
    local kernel=$1/usr/lib/modules/$2/kernel
    as_root rm -rf "$kernel"/sound "$kernel"/drivers/{gpu,media,infiniband,iio,staging,bluetooth,usb,hid,hwmon,mmc,mtd,ata} \
        "$kernel"/drivers/{comedi,accel,input,leds,power,platform,soundwire,isdn,nfc,edac,video,w1,firewire,pinctrl} \
        "$kernel"/drivers/net/{wireless,ethernet,usb,wwan,can,fddi,arcnet,hamradio,phy,dsa} "$kernel"/net/{mac80211,wireless,bluetooth} || return
    find "$kernel" -name '*.ko.xz' -print0 | as_root xargs -0 -r -n 50 -P "$(nproc)" xz -d || return
    as_root find "$kernel" -name '*.ko.zst' -exec zstd -q -d --rm {} + || return
    as_root chroot "$1" depmod "$2"
}

# A bzImage holds the ELF kernel compressed somewhere inside: look for each compressor's magic and try.
unpack_kernel() {
    local magic unpack offset
    for magic in '\x28\xb5\x2f\xfd:zstd -dc' '\xfd7zXZ\x00:xz -dc --single-stream' '\x1f\x8b\x08:gzip -dc'; do
        unpack=${magic#*:}
        for offset in $(LC_ALL=C grep -aboP "${magic%%:*}" "$1" | cut -d: -f1); do
            tail -c +$((offset + 1)) "$1" | $unpack >"$2" 2>/dev/null || true
            [ "$(head -c 4 "$2" | tail -c 3)" = ELF ] && return
        done
    done
    say "no kernel found in $1"
    return 1
}

# What it takes to mount the root filesystem, in load order; the rest is loaded from there.
early_modules() {
    local root=$1 version=$2 early=early module
    mkdir -p "$early"/{bin,modules,proc,sys,dev,root} || return
    cp "$root/usr/bin/busybox" "$early/bin/" || return
    # modprobe from the image: the host may have none. The loader of crc32c is named because ext4 asks for it by its
    # algorithm, which a list of dependencies does not show.
    for module in crc32c_generic virtio_pci virtio_blk ext4; do
        as_root chroot "$root" modprobe -S "$version" --show-depends $module 2>/dev/null
    done | sed -n 's/^insmod \(\S*\).*/\1/p' | awk '!seen[$0]++' >order
    grep -q /virtio_blk order && grep -q /ext4 order || { say "modules are missing in kernel $version"; return 1; }
    while read -r module; do
        cp "$root$module" "$early/modules/" && basename "$module"
    done <order >"$early/modules/order" || return
    (cd "$early" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >modules.cpio || return
    rm -r "$early" order
}

cached "$dir" make_image
echo "$dir"
