#!/usr/bin/env bash
# run.sh HUSK [TEST-ARGUMENTS...]: the integration tests, with real guests, wherever guests can run.
# Any further argument goes to the test runner: a name to filter by, --nocapture, ...
set -euo pipefail
husk=$1; shift
source "$(dirname "$0")/where.sh"
cd "$here"
tests=$(cargo test --release -p husk-integration --test it --locked --no-run --message-format=json |
    python3 -c 'import json,sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "it": print(message["executable"])')
images busybox debian work
status=0
inside bash "$here/integration/inside.sh" "$images" "$husk" "$tests" -- --test-threads=1 "$@" || status=$?
# 125: not a test but the emulated machine itself has failed. That is no verdict on husk: once more, on a new one.
if [ "$status" = 125 ]; then
    echo "the emulated machine died: running the tests once more" >&2
    images busybox debian work
    status=0
    inside bash "$here/integration/inside.sh" "$images" "$husk" "$tests" -- --test-threads=1 "$@" || status=$?
fi
exit "$status"
