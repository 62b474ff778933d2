# Sourced, not run: what image.sh and make.sh share. Things made from Debian packages live in one cache directory
# outside the checkout, each in a directory named by the hash of all it was made from, so that an entry is never
# changed once it has its name: two makers at once, or one killed half-way, leave nothing half made behind.

HUSK_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/husk

say() { echo "${0##*/}: $*" >&2; }

# mmdebstrap's root mode, chown and device nodes need root; everything else does not.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Where this machine gets its own Debian packages from: the repository names no host.
debian_mirror() {
    local uri
    uri=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Identifier: Packages' 2>/dev/null |
        sed -n 's/^Debian|Debian|//p' | head -n 1)
    # Before the first `apt-get update` apt knows no origins: take the first source named debian.
    [ -n "$uri" ] || uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        grep -v '^[[:space:]]*#' | grep -oE '(https?|file|copy|mirror\+[a-z]+):[^ ]*/debian/?([[:space:]]|$)' | head -n 1)
    [ -n "$uri" ] || { say "no Debian mirror in this machine's apt sources"; return 1; }
    echo "$uri"
}

# cached DIR FUNCTION: make DIR by calling FUNCTION in an empty directory, unless it is there. FUNCTION's output goes
# to standard error; it fails by its exit status, and must not rely on `set -e` (a condition calls it). What nobody has
# asked for in two weeks goes when something new is made.
cached() {
    local dir=$1 function=$2 work
    if [ -d "$dir" ]; then
        touch -c "$dir" 2>/dev/null || true # somebody else's cache may be read only
        return
    fi
    mkdir -p "${dir%/*}"
    exec 9>"$dir.lock"
    flock -n 9 || { say "waiting for another run that makes $dir"; flock 9; }
    if [ ! -d "$dir" ]; then
        # Whoever holds the lock is the only maker of this entry: what an earlier one left is nobody's.
        as_root rm -rf "$dir".part.*
        work=$(mktemp -d "$dir.part.XXXXXX")
        if ! (cd "$work" && "$function") >&2; then
            as_root rm -rf "$work"
            say "could not make $dir"
            return 1
        fi
        chmod 755 "$work" && touch "$work" && mv -T "$work" "$dir"
        find "${dir%/*}" -mindepth 1 -maxdepth 1 ! -name '*.part.*' -mtime +14 -exec rm -rf {} +
    fi
    exec 9>&-
}
