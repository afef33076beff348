# Sourced by the proofs: builds the release binaries (unless ORBIT_BUILT is set) and starts brokers of their own in a temporary folder.
#   start_broker [key=value ...]   standalone broker with embedded name server on BROKER and NAMESRV, store in STORE; sets PID
#   stop_broker                    SIGTERM; fails unless the exit code is 0
# Sets BENCH (orbit-bench), ORBIT (orbit-broker) and WORK (removed at exit); raises the limits that may be raised.
target=${CARGO_TARGET_DIR:-$PWD/target}
[ -n "${ORBIT_BUILT:-}" ] || cargo build --release --quiet -p server -p bench
ORBIT=$target/release/orbit-broker
BENCH=$target/release/orbit-bench
WORK=$(mktemp -d "${TMPDIR:-/tmp}/orbit-proof.XXXXXX")
# Below the range the kernel takes outgoing ports from, so that no client sits on them.
BROKER=127.0.0.1:23911
NAMESRV=127.0.0.1:23876
STORE=$WORK/store
PID=
ulimit -n "$(ulimit -Hn)" 2> /dev/null || true
trap 'code=$?; for job in $(jobs -p); do kill -9 "$job" 2> /dev/null || true; done; rm -rf "$WORK"; exit $code' EXIT

write_conf() { # write_conf [key=value ...]: $WORK/broker.conf
    printf '%s\n' "brokerName=proof" "brokerIP1=127.0.0.1" "bindAddress=127.0.0.1" "listenPort=${BROKER#*:}" \
        "namesrvListenPort=${NAMESRV#*:}" "storePathRootDir=$STORE" "$@" > "$WORK/broker.conf"
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
