#!/usr/bin/env bash
# embed.sh HUSK KERNEL INITRD OUT: puts the guest kernel and the agent into the program as ELF sections of their own,
# uncompressed and page-aligned, so that a start maps them. `husk` finds them by their names.
set -euo pipefail
husk=$1 kernel=$2 initrd=$3 out=$4
if [ "$out" -nt "$husk" ] && [ "$out" -nt "$kernel" ] && [ "$out" -nt "$initrd" ]; then exit 0; fi
mkdir -p "$(dirname "$out")"
flags=noload,readonly,data
objcopy --add-section .husk.kernel="$kernel" --set-section-flags .husk.kernel=$flags \
        --add-section .husk.initrd="$initrd" --set-section-flags .husk.initrd=$flags "$husk" "$out.new"
# Only sections that exist already can be aligned.
objcopy --set-section-alignment .husk.kernel=4096 --set-section-alignment .husk.initrd=4096 "$out.new"
mv "$out.new" "$out"
