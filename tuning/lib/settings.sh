# shellcheck shell=bash
# The list of settings in memory: NAMES in the file's order, and S[name.field] for every field.

declare -a NAMES=()
declare -A S=()

read_settings() { # read_settings FILE
    local line name='' field=''
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '' | '#'*) ;;
            '['*']')
                name=${line#[}
                name=${name%]}
                NAMES+=("$name")
                ;;
            ' '*) S[$name.$field]+=$line ;;
            *': '*)
                field=${line%%: *}
                S[$name.$field]=${line#*: }
                ;;
            *) die "$1: cannot read this line: $line" ;;
        esac
    done < "$1"
    local wanting
    for name in "${NAMES[@]}"; do
        for wanting in area kind want level why source off; do
            [ -n "${S[$name.$wanting]:-}" ] || die "$1: [$name] has no $wanting"
        done
    done
}

areas() { # every area once, in order
    local name seen=' '
    for name in "${NAMES[@]}"; do
        [[ $seen == *" ${S[$name.area]} "* ]] && continue
        seen+="${S[$name.area]} "
        printf '%s\n' "${S[$name.area]}"
    done
}

explain() { # explain NAME INDENT: reason, source and cost, wrapped
    local field line lead
    for field in why source off; do
        lead=$2
        while IFS= read -r line; do
            printf '%s%s\n' "$lead" "$line"
            lead="$2  "
        done < <(printf '%s: %s\n' "$field" "${S[$1.$field]}" | fold -s -w $((110 - ${#2})))
    done
}
