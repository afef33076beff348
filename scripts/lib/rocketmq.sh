# Sourced by the proofs that measure the real Apache RocketMQ beside OrbitMQ.
#   rocketmq_there NAME [option ...]   whether it can be had, else says that NAME is skipped and why. JARS: nothing if an option
#                                      names the jars already
rocketmq_there() {
    local name=$1
    shift
    JARS=()
    if ! command -v java > /dev/null; then echo "$name: RocketMQ's part is skipped, Java is absent"; return 1; fi
    case " $* " in *" --rocketmq-lib"*) return 0 ;; esac
    if [ -n "${ROCKETMQ_LIB:-}" ]; then JARS=(--rocketmq-lib "$ROCKETMQ_LIB"); return 0; fi
    if ! scripts/fetch-rocketmq; then echo "$name: RocketMQ's part is skipped, its jars cannot be fetched"; return 1; fi
}
