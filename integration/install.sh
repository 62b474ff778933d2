#!/usr/bin/env bash
# install.sh HUSK SHIM DESTDIR PREFIX: everything that a user needs, and nothing that exists already is overwritten in /etc.
set -euo pipefail
husk=$1 shim=$2 destdir=$3 prefix=$4
here=$(cd "$(dirname "$0")/.." && pwd)
case $prefix in /usr) etc=/etc ;; *) etc=$prefix/etc ;; esac
install -Dm755 "$husk" "$destdir$prefix/bin/husk"
# Beside it: the shim starts the husk that it was installed with.
install -Dm755 "$shim" "$destdir$prefix/bin/containerd-shim-husk-v2"
install -Dm644 "$here/docs/config.toml" "$destdir$etc/husk/config.toml.sample"
for shell in bash zsh fish; do
    case $shell in
    bash) to=share/bash-completion/completions/husk ;;
    zsh) to=share/zsh/site-functions/_husk ;;
    fish) to=share/fish/vendor_completions.d/husk.fish ;;
    esac
    "$husk" completion "$shell" >"$husk.completion"
    install -Dm644 "$husk.completion" "$destdir$prefix/$to"
    rm "$husk.completion"
done
pages=$(mktemp -d)
trap 'rm -rf "$pages"' EXIT
"$husk" manual "$pages"
for page in "$pages"/*; do
    install -Dm644 "$page" "$destdir$prefix/share/man/man1/${page##*/}"
done
echo "installed $destdir$prefix/bin/husk ($(stat -c %s "$husk") bytes), containerd-shim-husk-v2 and $etc/husk/config.toml.sample"
