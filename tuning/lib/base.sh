# shellcheck shell=bash
# What all three commands begin with: options, the root of the tree they work on, and how a value is read and written.

# Everything is looked for below ROOT: empty is this machine, anything else a tree for trying things out.
ROOT=
STATE=
ONLY=
OPTIONAL=
WRITER_CPU=
declare -a STORES=()

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

# common_option ARGS...: takes one option that all commands know and sets TAKEN to how many words that were (0: not one).
common_option() {
    TAKEN=2
    case $1 in
        --root) ROOT=${2:?--root needs a directory} && ROOT=${ROOT%/} ;;
        --only) ONLY+=" ${2:?--only needs an area or a setting} " ;;
        --store) STORES+=("${2:?--store needs a directory}") ;;
        --writer-cpu) WRITER_CPU=${2:?--writer-cpu needs a number} ;;
        --optional) OPTIONAL=yes TAKEN=1 ;;
        *) TAKEN=0 ;;
    esac
    [[ ${WRITER_CPU:-0} =~ ^[0-9]+$ ]] || die "--writer-cpu takes a whole number"
}

wanted_here() { # wanted_here NAME: is it among what --only names?
    [ -z "$ONLY" ] || [[ $ONLY == *" ${S[$1.area]} "* || $ONLY == *" $1 "* ]]
}

check_only() { # every word of --only must be an area or a setting
    local word name
    for word in $ONLY; do
        for name in "${NAMES[@]}"; do
            [[ $word == "$name" || $word == "${S[$name.area]}" ]] && continue 2
        done
        die "--only $word: no such area or setting (areas: $(areas | tr '\n' ' '))"
    done
}

in_container() {
    [ -e "$ROOT/.dockerenv" ] || [ -e "$ROOT/run/.containerenv" ] || [ -s "$ROOT/run/systemd/container" ]
}

# value PATH: a setting's value. Of a list of choices (`none [mq-deadline]`) the one in brackets. Fails if it cannot be read.
value() {
    local text
    { text=$(< "$ROOT$1"); } 2> /dev/null || return 1
    if [[ $text =~ \[([^][]+)\] ]]; then text=${BASH_REMATCH[1]}; fi
    printf '%s\n' "$text"
}

# put PATH VALUE: writes a value; on failure says why on standard output and fails.
put() {
    local path=$ROOT$1 text=$2 now
    [ -e "$path" ] || { echo "it is not there" && return 1; }
    if [ -n "$ROOT" ]; then
        # A tree of plain files has no kernel that would move the brackets.
        now=$(< "$path")
        if [[ $now =~ \[([^][]+)\] ]]; then
            [[ " ${now//[][]/} " == *" $2 "* ]] || { echo "it takes only: ${now//[][]/}" && return 1; }
            text=" ${now//[][]/} "
            text=${text/ $2 / [$2] }
            text=${text# }
            text=${text% }
        fi
    fi
    local problem
    if ! problem=$({ printf '%s\n' "$text" > "$path"; } 2>&1); then
        problem=${problem##*: }
        if [ "$EUID" != 0 ]; then
            problem+=' (only root may)'
        elif [[ $problem == "Read-only file system" ]] || in_container; then
            problem+=' (a container sees these settings but the host owns them)'
        fi
        echo "$problem"
        return 1
    fi
}

same() { # same A B: equal but for blanks (the kernel prints tabs between figures)
    local -a a b
    read -ra a <<< "$1"
    read -ra b <<< "$2"
    [ "${a[*]}" = "${b[*]}" ]
}
