#!/bin/bash
# prepare.sh: install the Debian packages that building and testing husk takes, if any is missing. Debian 12 and 13.
# Rust is not among them: rustup or whatever you have. Run by root, or by anyone who may use sudo. Fast when there is
# nothing to do, so that the Makefile can call it each time.
set -euo pipefail

packages=(
    # the guest kernel
    linux-source-6.12 gcc g++ libc6-dev make flex bison libelf-dev bc perl cpio xz-utils zstd
    # husk: seccomp profiles
    libseccomp-dev
    # the emulated machine and the test root filesystems
    qemu-system-x86 mmdebstrap e2fsprogs python3-minimal util-linux bsdutils tar
)

missing() {
    local installed name
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
    for name in "${packages[@]}"; do
        [[ $'\n'$installed$'\n' == *$'\n'"installed $name"$'\n'* ]] || echo "$name"
    done
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Which of the names have no candidate in apt's lists.
unknown() {
    local name
    for name; do
        [[ $(apt-cache policy "$name") == *Candidate:\ [!\(]* ]] || echo "$name"
    done
}

command -v dpkg-query >/dev/null || { echo "prepare: this is no Debian; what is needed: ${packages[*]}"; exit 1; }
read -r -d "" -a wanted <<<"$(missing)" || true
if [ ${#wanted[@]} = 0 ]; then
    echo "prepare: nothing is missing"
    exit
fi
echo "prepare: installing ${wanted[*]}"
[ -z "$(unknown "${wanted[@]}")" ] || as_root apt-get -q update
read -r -d "" -a none <<<"$(unknown "${wanted[@]}")" || true
if [ ${#none[@]} != 0 ]; then
    echo "prepare: apt knows no ${none[*]}"
    case " ${none[*]} " in *" linux-source-6.12 "*)
        echo "prepare: linux-source-6.12 is in Debian 13, and in the security and backports suites of Debian 12: add one to" \
            "apt's sources, or build the guest kernel from a tarball (KERNEL_SRC)" ;;
    esac
    exit 1
fi
install() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${wanted[@]}"; }
# Lists that are too old name package versions that the mirror no longer has.
install || { as_root apt-get -q update && install; }
echo "prepare: done"
