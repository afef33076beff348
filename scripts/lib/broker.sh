# Sourced by the proofs: builds the release binaries (unless ORBIT_BUILT is set) and starts brokers of their own in a temporary folder.
#   start_broker [key=value ...]   standalone broker with embedded name server on BROKER and NAMESRV, store in STORE; sets PID
#   stop_broker                    SIGTERM; fails unless the exit code is 0
#   bench COMMAND [option ...]     orbit-bench, in a way that a signal ends it at once and not after its last second
#   need_room NAME GB              ends the proof as skipped where the disk has less free
#   need_room_beside NAME GB       the same where RocketMQ takes part
#   slow_disk NAME MIB             holds what is written to the disk from now on to so many MiB/s; ends the proof as skipped where that cannot be done
#   orbit_options [key=value ...]  OPTIONS: what orbit-bench needs to start brokers itself, with these lines of broker.conf
# Sets BENCH (orbit-bench), ORBIT (orbit-broker), WORK and SHM (a folder on disk and one of shared memory, both removed at exit,
# when everything that was started has been ended); raises the limits that may be raised.
target=${CARGO_TARGET_DIR:-$PWD/target}
[ -n "${ORBIT_BUILT:-}" ] || cargo build --release --quiet -p server -p namesrv -p bench
ORBIT=$target/release/orbit-broker
BENCH=$target/release/orbit-bench
WORK=$(mktemp -d "${TMPDIR:-/tmp}/orbit-proof.XXXXXX")
SHM=$(mktemp -d /dev/shm/orbit-proof.XXXXXX 2> /dev/null || mktemp -d "$WORK/shm.XXXXXX")
# Below the range the kernel takes outgoing ports from, so that no client sits on them.
BROKER=127.0.0.1:23911
NAMESRV=127.0.0.1:23876
STORE=$WORK/store
# Where orbit-bench keeps the stores of brokers that it starts.
STORES=$WORK
PID=
# The control group of `slow_disk`.
GROUP=
ulimit -n "$(ulimit -Hn)" 2> /dev/null || true
clean_up() {
    local job
    # What runs in the foreground is no job; what orbit-bench has started ends with it.
    for job in $(jobs -p) $(cat "/proc/$$/task/$$/children" 2> /dev/null); do kill -9 "$job" 2> /dev/null || true; done
    if mountpoint -q "$WORK/disk" 2> /dev/null; then umount "$WORK/disk" || umount -l "$WORK/disk" || true; fi
    rm -rf "$WORK" "$SHM"
    if [ -n "$GROUP" ]; then
        echo "$$" > "$(dirname "$GROUP")/cgroup.procs"
        # What was killed leaves it a moment later.
        for _ in $(seq 50); do rmdir "$GROUP" 2> /dev/null && break; sleep 0.1; done
    fi
}
trap 'code=$?; clean_up; exit $code' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

bench() {
    "$BENCH" "$@" &
    wait "$!"
}

need_room() { # need_room NAME GB
    local free_kib
    free_kib=$(df -Pk "$WORK" | awk 'NR == 2 { print $4 }')
    if [ "$free_kib" -lt $(($2 * 1000000)) ]; then
        echo "$1: skipped, it needs $2 GB of free disk and $WORK has $((free_kib / 1000000))"
        exit 0
    fi
}

need_room_beside() { # need_room_beside NAME GB: the same, and RocketMQ, which refuses messages on a full disk, is kept far from it
    local used_kib free_kib after
    need_room "$1" "$2"
    read -r used_kib free_kib < <(df -Pk "$WORK" | awk 'NR == 2 { print $3, $4 }')
    after=$(((used_kib + $2 * 1000000) * 100 / (used_kib + free_kib)))
    if [ "$after" -gt 85 ]; then
        echo "$1: skipped, with its $2 GB the disk under $WORK would be $after % full, and RocketMQ takes nothing from 90 % on"
        exit 0
    fi
}

slow_disk() { # slow_disk NAME MIB
    local disk file limit top
    disk=$(findmnt -no MAJ:MIN -T "$WORK" | tr -d ' ')
    # Only whole disks can be held back.
    if [ -e "/sys/dev/block/$disk/partition" ]; then disk=$(cat "/sys/dev/block/$disk/../dev"); fi
    for top in /sys/fs/cgroup/blkio /sys/fs/cgroup/unified /sys/fs/cgroup; do
        file=blkio.throttle.write_bps_device limit="$disk $(($2 << 20))"
        if [ -e "$top/cgroup.controllers" ]; then
            file=io.max limit="$disk wbps=$(($2 << 20))"
            { echo +io > "$top/cgroup.subtree_control"; } 2> /dev/null || true
        fi
        GROUP=$top/orbit-proof.$$
        mkdir "$GROUP" 2> /dev/null || { GROUP=; continue; }
        if [ -e "$GROUP/$file" ] && { echo "$limit" > "$GROUP/$file"; } 2> /dev/null; then
            echo "$$" > "$GROUP/cgroup.procs"
            return
        fi
        rmdir "$GROUP"
        GROUP=
    done
    echo "$1: skipped, writes to the disk $disk cannot be held to $2 MiB/s here (control groups, root)"
    exit 0
}

orbit_options() { # orbit_options [key=value ...]: OPTIONS
    local line
    OPTIONS=(--orbit-broker "$ORBIT" --dir "$STORES" --window-dir "$SHM")
    for line in "$@"; do OPTIONS+=(--orbit-set "$line"); done
}

write_conf() { # write_conf [key=value ...]: $WORK/broker.conf
    printf '%s\n' "brokerName=proof" "brokerIP1=127.0.0.1" "bindAddress=127.0.0.1" "listenPort=${BROKER#*:}" \
        "namesrvListenPort=${NAMESRV#*:}" "storePathRootDir=$STORE" "windowDir=$SHM" "$@" > "$WORK/broker.conf"
}

start_broker() {
    write_conf "$@"
    "$ORBIT" -c "$WORK/broker.conf" >> "$WORK/broker.log" 2>&1 &
    PID=$!
    for _ in $(seq 500); do
        if (exec 3<> "/dev/tcp/${BROKER/://}") 2> /dev/null; then return; fi
        kill -0 "$PID" 2> /dev/null || break
        sleep 0.02
    done
    echo "the broker does not listen on $BROKER:" >&2
    tail -n 20 "$WORK/broker.log" >&2
    exit 1
}

stop_broker() {
    local pid=$PID
    PID=
    kill "$pid"
    wait "$pid" || { echo "FAIL the broker's exit code after SIGTERM: $?" >&2; tail -n 20 "$WORK/broker.log" >&2; return 1; }
}
