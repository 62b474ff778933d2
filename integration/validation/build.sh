#!/usr/bin/env bash
# build.sh: the OCI project's validation programs, built by Debian's Go from Debian's source package of runtime-tools;
# prints the directory that holds them. Static, so that they run in the emulated machine too. Made once, kept in
# ~/.cache/husk.
#
# Their one library that Debian does not package, a printer of test results, is in tap/.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
. "$here/../rootfs/cache.sh"

package=golang-github-opencontainers-runtime-tools
# What they import, as Debian's packages in /usr/share/gocode.
needs=(golang-go "$package-dev" golang-github-google-uuid-dev)

install_needs() {
    local missing=()
    for name in "${needs[@]}"; do dpkg -s "$name" >/dev/null 2>&1 || missing+=("$name"); done
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    as_root apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# The newest source package of any suite: trixie's has what Debian 12's lacks (cgroup v2 in the programs themselves).
fetch() {
    local mirror
    mirror=$(debian_mirror) || return 1
    mkdir -p lists/partial
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >sources.list
    local apt=(-o "Dir::Etc::SourceList=$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$PWD/lists" -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" -qq update || return 1
    # apt checks each file against the signed index. The .dsc may be missing on a mirror: the tar archive is what counts.
    apt-get "${apt[@]}" -qq source --download-only --tar-only "$package" || ls ./*.orig.tar.* >/dev/null || return 1
    mkdir source && tar -C source --strip-components=1 -xf ./*.orig.tar.*
    rm -rf lists sources.list
}

build() {
    install_needs && fetch || return 1
    local top=$PWD/gopath/src/github.com
    mkdir -p "$top/opencontainers" "$top/mndrix"
    mv source "$top/opencontainers/runtime-tools" && cp -r "$here/tap" "$top/mndrix/tap-go" || return 1
    cd "$top/opencontainers/runtime-tools" || return 1
    local out=$OLDPWD
    export GO111MODULE=off GOPATH=$out/gopath:/usr/share/gocode CGO_ENABLED=0 GOCACHE=$out/cache GOFLAGS=-p=1
    go build -o "$out/runtimetest" ./cmd/runtimetest || return 1
    local directory
    for directory in validation/*/; do
        local name=${directory#validation/} && name=${name%/}
        [ "$name" = util ] || go build -o "$out/$name.t" "./$directory" || return 1
    done
    cp rootfs-amd64.tar.gz "$out/" && cd "$out" && chmod -R u+w gopath cache && rm -rf gopath cache ./*.tar.xz
}

key=$(cat "$0" "$here"/tap/*.go | sha256sum | cut -c1-16)
cached "$HUSK_CACHE/validation/$key" build
echo "$HUSK_CACHE/validation/$key"
