#!/bin/bash
# Builds the guest kernel and prints the path of its vmlinux.
#
# Usage: kernel-config/build.sh [--out DIR]
#
#   --out DIR       also put vmlinux, config, kernel.release and System.map into DIR
#   KERNEL_SRC      a kernel source tarball, instead of Debian's linux-source-6.12
#   XDG_CACHE_HOME  where results are kept (default: ~/.cache), below husk/kernel
#   JOBS            parallel compilers (default: one per CPU)
#
# On stdout: the path, nothing else. What happens meanwhile goes to stderr. The
# checkout is never written to. Same source, fragments and compiler: same bytes.
set -euo pipefail
export LC_ALL=C

readonly debian_package=linux-source-6.12
readonly debian_tarball=/usr/src/$debian_package.tar.xz

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here

say() { printf 'kernel: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

out=
while (($#)); do
    case $1 in
    --out) (($# > 1)) || fail "--out needs a directory"; out=$2; shift 2 ;;
    --out=*) out=${1#--out=}; shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 0 ;;
    *) fail "unknown argument '$1' (see --help)" ;;
    esac
done

case $(uname -m) in
x86_64) readonly arch=x86_64 kernel_arch=x86_64 ;;
*) fail "there is no configuration for $(uname -m) yet, only for x86_64" ;;
esac
readonly fragments=("$here/common.config" "$here/$arch.config")
readonly patches=("$here"/patches/*.patch)

# --- What goes in -----------------------------------------------------------

# The source is known by its size, time and package version: hashing 150 MB
# would take longer than everything else that an unchanged build does.
source_identity() {
    if [[ -n ${KERNEL_SRC:-} ]]; then
        [[ -f $KERNEL_SRC && -r $KERNEL_SRC ]] || fail "KERNEL_SRC=$KERNEL_SRC is not a file that can be read"
        tarball=$(realpath "$KERNEL_SRC")
        package=tarball
    else
        [[ -r $debian_tarball ]] || fail "$debian_tarball is missing: install the Debian package $debian_package" \
            "(apt-get install $debian_package), or name a source tarball with KERNEL_SRC=FILE"
        tarball=$debian_tarball
        package=$(dpkg-query -W -f '${Version}' "$debian_package" 2>/dev/null || echo unknown)
    fi
    identity="$package $(stat -Lc '%s %Y' "$tarball")"
}

# Comments of a fragment are for people: only what the kernel's build reads counts.
fragment_lines() { grep -hE '^(CONFIG_|# CONFIG_[A-Za-z0-9_]+ is not set$)' "${fragments[@]}"; }

require_tools() {
    local missing=() tool
    for tool in gcc:gcc ld:binutils make:make flex:flex bison:bison bc:bc perl:perl xz:xz-utils patch:patch; do
        command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
    done
    [[ -e /usr/include/libelf.h ]] || missing+=(libelf-dev)
    ((${#missing[@]} == 0)) || fail "missing build tools: install ${missing[*]}"
}

# --- The steps of a build ---------------------------------------------------

# Everything that kconfig reads, and of the sources what an x86 kernel without
# hardware drivers can reach: a third of the tree.
unpack() {
    local drop=() dir
    for dir in accel gpu hwmon iio infiniband media mtd pinctrl platform scsi soundwire staging usb video; do
        drop+=("--exclude=*/drivers/$dir/*.[chS]")
    done
    for dir in alpha arc arm arm64 csky hexagon loongarch m68k microblaze mips nios2 openrisc parisc \
        powerpc riscv s390 sh sparc um xtensa; do
        drop+=("--exclude=*/arch/$dir/*.[chS]" "--exclude=*/arch/$dir/*.dts*")
    done
    tar -xf "$tarball" -C "$1" --strip-components=1 --no-same-owner --wildcards \
        --exclude='*/Documentation/*/*' --exclude='*.rst' --exclude='*/sound/*.[ch]' \
        --exclude='*/drivers/net/ethernet/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]' \
        --exclude='*/tools/testing/*' --exclude='*/tools/perf/*' "${drop[@]}" ||
        fail "$tarball cannot be unpacked"
    [[ -f $1/Makefile && -f $1/Kconfig ]] || fail "$tarball does not hold a kernel source tree"
    local patch
    for patch in "${patches[@]}"; do
        patch -s -p1 -d "$1" --no-backup-if-mismatch <"$patch" >&2 || fail "$(basename "$patch") does not fit $tarball"
    done
}

# A bare environment: no flag of the caller reaches the compiler. It replaces
# its shell: run it in one of its own, whose pid is then make's.
kernel_make() {
    exec env -i PATH="$PATH" HOME=/nonexistent LC_ALL=C TZ=UTC \
        SOURCE_DATE_EPOCH="$epoch" KBUILD_BUILD_TIMESTAMP="$(TZ=UTC date -d "@$epoch")" \
        KBUILD_BUILD_USER=husk KBUILD_BUILD_HOST=husk KBUILD_BUILD_VERSION=1 \
        "${extra_env[@]}" make -C "$tree" ARCH="$kernel_arch" "$@"
}

# As `tinyconfig` does it: allnoconfig with the fragments as its given answers.
# Merging them into a finished tinyconfig instead would turn on, by default,
# some two hundred options that become visible on the way.
configure() {
    fragment_lines >"$tree/husk.config"
    extra_env=(KCONFIG_ALLCONFIG=husk.config)
    (kernel_make -s allnoconfig) >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; fail "kconfig failed"; }
    extra_env=()
    (kernel_make -s olddefconfig) >>"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; fail "kconfig failed"; }
    require_survival
}

# An option that kconfig dropped, or turned on against our word, ends the build.
require_survival() {
    local line name got lost=0
    while read -r line; do
        name=${line#\# }; name=${name%%[= ]*}
        got=$(grep -E "^(# )?$name[= ]" "$tree/.config" || true)
        case $line in
        '#'*) [[ -z $got || $got == "# $name is not set" ]] && continue ;;
        *) [[ $got == "$line" ]] && continue ;;
        esac
        say "did not survive: wanted '$line', got '${got:-nothing: unknown, or its dependencies are off}'"
        lost=$((lost + 1))
    done <"$tree/husk.config"
    ((lost == 0)) || fail "$lost option(s) of the fragments did not survive"
}

compile() {
    local started=$SECONDS next=0 line
    kernel_make -j"${JOBS:-$(nproc)}" vmlinux >"$work/log" 2>&1 &
    make_pid=$!
    while kill -0 "$make_pid" 2>/dev/null; do
        sleep 1
        ((SECONDS >= next)) || continue
        line="$(grep -cE '^  (CC|AS) ' "$work/log" || true) objects compiled, $((SECONDS - started)) s"
        if [[ -t 2 ]]; then
            printf '\rkernel: %s ' "$line" >&2
            next=$((SECONDS + 2))
        else
            say "$line"
            next=$((SECONDS + 10))
        fi
    done
    [[ ! -t 2 ]] || echo >&2
    if ! wait "$make_pid"; then
        grep -E 'error|Error|undefined' "$work/log" | head -n 20 >&2 || true
        tail -n 15 "$work/log" >&2
        make_pid=
        fail "the kernel did not compile"
    fi
    make_pid=
    say "compiled in $((SECONDS - started)) s"
}

# Into the cache in one rename: a reader sees a whole result or none.
store() {
    local result=$work/result
    mkdir "$result"
    strip --strip-all -o "$result/vmlinux" "$tree/vmlinux"
    cp "$tree/.config" "$result/config"
    cp "$tree/System.map" "$result/System.map"
    cp "$tree/include/config/kernel.release" "$result/kernel.release"
    chmod 0644 "$result"/*
    mv -T "$result" "$cached"
}

build() {
    require_tools
    tree=$work/linux
    mkdir -p "$tree"
    # Whatever the end is, nothing but a result stays: no file, no compiler.
    make_pid=
    trap '[[ -z $make_pid ]] || { kill "$make_pid"; wait "$make_pid" || :; } 2>/dev/null; rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    say "building from $tarball ($package)"
    unpack "$tree"
    # The date in `uname -v`: the source's own, unless the caller says.
    epoch=${SOURCE_DATE_EPOCH:-$(stat -c %Y "$tree/Makefile")}
    extra_env=()
    configure
    compile
    store
    rm -rf "$work"
    trap - EXIT INT TERM
}

# --- Cached, or built -------------------------------------------------------

source_identity
cache=${XDG_CACHE_HOME:-$HOME/.cache}/husk/kernel
# What decides the bytes, and nothing else: a changed message costs no rebuild.
key=$({
    echo "$arch $identity ${SOURCE_DATE_EPOCH:-}"
    fragment_lines
    cat "${patches[@]}"
    declare -f unpack kernel_make configure compile store
    gcc --version 2>/dev/null | head -n 1
    ld --version 2>/dev/null | head -n 1
} | sha256sum | cut -c 1-20)
cached=$cache/$key
work=$cache/$key.building

if [[ ! -f $cached/vmlinux ]]; then
    mkdir -p "$cache"
    # One build at a time, of any kernel: two would only take twice as long.
    exec 9>"$cache/lock"
    if ! flock -n 9; then
        say "another build is running: waiting for it"
        flock 9
    fi
    # It may have been made while we waited.
    if [[ ! -f $cached/vmlinux ]]; then
        # What a killed build left behind: nobody else is building now.
        rm -rf "$cache"/*.building
        build
        say "$(<"$cached/kernel.release"): $(stat -c %s "$cached/vmlinux") bytes"
        size "$cached/vmlinux" >&2
    fi
    exec 9>&-
fi

if [[ -n $out ]]; then
    mkdir -p "$out"
    for file in vmlinux config kernel.release System.map; do
        cp "$cached/$file" "$out/.$file.new"
        mv "$out/.$file.new" "$out/$file"
    done
    echo "$(cd "$out" && pwd)/vmlinux"
else
    echo "$cached/vmlinux"
fi
