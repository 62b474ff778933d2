#!/usr/bin/env bash
# demo-inside.sh HUSK ROOTFS: makes a bundle and runs it, on a machine whose KVM runs guests.
set -euo pipefail
husk=$1 rootfs=$2
bundle=$(mktemp -d /var/tmp/husk-demo.XXXXXX)
trap 'rm -rf "$bundle"' EXIT
cp "$husk" "$bundle/husk"
mkdir "$bundle/rootfs" && cp -a "$rootfs/." "$bundle/rootfs/"
cd "$bundle"
./husk spec
script='echo "hello from $(uname -sr), pid $$, as $(id -un), on $(nproc) vcpu with $(free -m | awk "/Mem/{print \$2}") MiB"; echo written inside > /root/note'
sed -i -e 's/"terminal": *true/"terminal": false/' -e 's/"readonly": *true/"readonly": false/' config.json
python3 - "$script" <<'P'
import json, sys
config = json.load(open("config.json"))
config["process"]["args"] = ["sh", "-c", sys.argv[1]]
json.dump(config, open("config.json", "w"), indent=2)
P
show() { printf '\n$ %s\n' "$*"; "$@"; }
show uname -sr
show ./husk check
show ./husk run demo
show cat rootfs/root/note
