# shellcheck shell=bash
# What was before, so that `undo` can bring back exactly that.
#
#   STATE/before     one line per thing that was touched, in order: what <tab> path <tab> rest
#                      value   path   the value it had             file   path   number of the copy in STATE/files
#                      absent  path   a file that did not exist    dir    path   a directory that did not exist
#   STATE/chosen     what is to hold after a reboot as well: where <tab> key <tab> line (see persist.sh)
# The first entry for a path stands, however often `apply` runs; it is written before the thing is touched. Paths are
# without ROOT. `undo` removes all of this when everything is as it was.

declare -A REMEMBERED=()

open_state() { # open_state: makes the directory; the directories made on the way are remembered too
    : "${STATE:=$ROOT/var/lib/orbitmq/tuning}"
    local -a made=()
    local dir=$STATE
    while [ ! -d "$dir" ]; do made=("$dir" "${made[@]}") && dir=$(dirname "$dir"); done
    mkdir -p "$STATE/files" 2> /dev/null || die "cannot write to $STATE: run as root, or with --state DIR, or with --dry-run"
    load_state
    for dir in "${made[@]}"; do
        # Only what lies in the tree that is being tuned; a state directory elsewhere is the caller's own.
        if [[ $dir == "$ROOT"/* ]]; then remember dir "${dir#"$ROOT"}" ''; fi
    done
}

load_state() {
    local what path rest
    REMEMBERED=()
    [ -r "$STATE/before" ] || return 0
    while IFS=$'\t' read -r what path rest; do REMEMBERED[$path]=$what; done < "$STATE/before"
    : "${rest:-}"
}

remember() { # remember WHAT PATH REST
    [ -z "${REMEMBERED[$2]:-}" ] || return 0
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >> "$STATE/before" || die "cannot write to $STATE/before"
    REMEMBERED[$2]=$1
}

remember_value() { # remember_value PATH
    local now
    [ -z "${REMEMBERED[$1]:-}" ] || return 0
    now=$(value "$1") && remember value "$1" "$now"
}

remember_file() { # remember_file PATH: with the directories above it that do not exist
    local dir number
    local -a missing=()
    [ -z "${REMEMBERED[$1]:-}" ] || return 0
    dir=${1%/*}
    while [ -n "$dir" ] && [ ! -d "$ROOT$dir" ]; do missing=("$dir" "${missing[@]}") && dir=${dir%/*}; done
    for dir in "${missing[@]}"; do remember dir "$dir" ''; done
    if [ -e "$ROOT$1" ] || [ -L "$ROOT$1" ]; then
        number=$((${#REMEMBERED[@]} + 1))
        cp -a -- "$ROOT$1" "$STATE/files/$number" || die "cannot keep a copy of $ROOT$1"
        remember file "$1" "$number"
    else
        remember absent "$1" ''
    fi
}

# place_file PATH FILE: remembers what is there and puts FILE's content in its place, whole or not at all; says how it went.
# Fails if it could not.
place_file() {
    local problem
    remember_file "$1"
    # Values are gone with the power, files are not: the memory of a file must be on the disk before the file.
    sync "$STATE/before" 2> /dev/null
    if problem=$({ mkdir -p -- "$ROOT${1%/*}" && cp -- "$2" "$ROOT$1.new" && chmod 644 "$ROOT$1.new" && mv -- "$ROOT$1.new" "$ROOT$1"; } 2>&1); then
        printf '  wrote    %s\n' "$1"
        return 0
    fi
    rm -f -- "$ROOT$1.new" 2> /dev/null
    skipped_file "$1" "${problem##*: }"
    return 1
}

skipped_file() { # skipped_file PATH WHY
    printf '  skipped  %s: %s\n' "$1" "$2"
}
