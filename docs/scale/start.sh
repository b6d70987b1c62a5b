#!/bin/sh
# What the container runs: the batch command, once the ledger lies on a disk that outlives the container.
set -eu

inside=no
for word in "$@"; do
    case $word in --demo | --local | --local=* | --dry-run | --help | -h) inside=yes ;; esac
done

# A volume is a line of its own in the list of mounts; a folder of the image is none.
if [ "$inside" = no ] && ! awk -v at="$KONTEXT_BRIDGE_HOME" '$5 == at { found = 1 } END { exit !found }' \
    /proc/self/mountinfo; then
    echo "The ledger $KONTEXT_BRIDGE_HOME would be gone with this container, and what it paid for would be paid" >&2
    echo "again. Nothing was sent. Mount a disk that stays: --volume LEDGER:$KONTEXT_BRIDGE_HOME" >&2
    exit 1
fi

# exec, so that the signal that ends the container reaches the command
exec python -m kontext_bridge.batch "$@"
