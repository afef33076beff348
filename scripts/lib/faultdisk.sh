# Sourced by the proofs that need the faulty disk: builds the release binaries (unless ORBIT_BUILT is set), ends the script with a line
# where no FUSE file system can be mounted, and leaves no mount, process or file behind however the script ends.
# Sets ORBIT (orbit-broker), gives `run`; TMPDIR is a folder of the script's own.
target=${CARGO_TARGET_DIR:-$PWD/target}
[ -n "${ORBIT_BUILT:-}" ] || cargo build --release --quiet -p server -p faultdisk
ORBIT=$target/release/orbit-broker
FAULTDISK=$target/release/orbit-faultdisk
if ! why=$("$FAULTDISK" available 2>&1); then
    echo "skipped: ${why#orbit-faultdisk: }"
    exit 0
fi
ulimit -n "$(ulimit -Hn)" 2> /dev/null || true
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/orbit-faultdisk.XXXXXX")
export TMPDIR
PROOF=
cleanup() {
    trap '' INT TERM
    if [ -n "$PROOF" ]; then
        # Its brokers and disks end with it.
        kill "$PROOF" 2> /dev/null || true
        wait "$PROOF" 2> /dev/null || true
        rm -rf /dev/shm/orbit-faultdisk."$PROOF".*
    fi
    awk -v below="$TMPDIR/" 'index($2, below) == 1 { print $2 }' /proc/mounts | while read -r mounted; do umount -l "$mounted" || true; done
    # A disk that is just ending may be in the way.
    for _ in 1 2 3 4 5 6 7 8 9; do rm -rf "$TMPDIR" 2> /dev/null && break; sleep 0.2; done
}
trap 'code=$?; cleanup; exit $code' EXIT
trap 'exit 130' INT TERM

run() { # run COMMAND...: orbit-faultdisk, so that a signal to the script ends it at once
    "$FAULTDISK" "$@" &
    PROOF=$!
    wait "$PROOF"
}
