# shellcheck shell=bash
# How one setting stands on this machine.
#
# examine NAME sets STANDING (ok, off, absent), FOUND and WANT as text, REASON for absent, and for what can be changed
# the places that are off: OFF_PATHS, OFF_NOW, OFF_WANTED (one each), with OFF_LABELS to tell them apart.

declare -a OFF_PATHS OFF_NOW OFF_WANTED OFF_LABELS

examine() {
    STANDING=absent FOUND='' WANT=${S[$1.want]} REASON=''
    OFF_PATHS=() OFF_NOW=() OFF_WANTED=() OFF_LABELS=()
    case ${S[$1.kind]} in
        report) "report_${S[$1.run]}" ;;
        install) examine_file "$1" ;;
        *) examine_values "$1" ;;
    esac
}

# place<TAB>label of everything a setting is about; REASON-free: nothing printed means that this machine has none.
places() {
    local item path
    case ${S[$1.kind]} in
        sysctl) [ -e "$ROOT/proc/sys/${1//.//}" ] && printf '%s\t\n' "/proc/sys/${1//.//}" ;;
        disk)
            # shellcheck disable=SC2086 # several classes
            for item in $(disks_of ${S[$1.disks]}); do
                path=/sys/block/$item/${S[$1.place]}
                [ -e "$ROOT$path" ] && printf '%s\t%s\n' "$path" "$item"
            done
            ;;
        irq)
            for item in $(network_cards); do
                for path in $(irqs_of "$item"); do
                    path=/proc/irq/$path/smp_affinity_list
                    [ -e "$ROOT$path" ] && printf '%s\t%s\n' "$path" "$item"
                done
            done
            ;;
        file)
            for path in "$ROOT"${S[$1.place]}; do
                [ -e "$path" ] && printf '%s\t%s\n' "${path#"$ROOT"}" "$(label_of "${S[$1.place]}" "${path#"$ROOT"}")"
            done
            ;;
        *) die "[$1] kind: ${S[$1.kind]}" ;;
    esac
}

label_of() { # label_of PATTERN PATH: what the stars stood for, such as eth0/rx-1
    local -a pattern path
    local i text=''
    IFS=/ read -ra pattern <<< "$1"
    IFS=/ read -ra path <<< "$2"
    for i in "${!pattern[@]}"; do [[ ${pattern[i]} == *'*'* ]] && text+="/${path[i]}"; done
    echo "${text#/}"
}

examine_values() {
    local name=$1 path label now good=0 unreadable=0 wanted_text=''
    while IFS=$'\t' read -r path label; do
        now=$(value "$path") || { unreadable=$((unreadable + 1)) && continue; }
        want "$name" "$path" "$now" || continue
        WANT=$WANTED
        if same "$now" "$WANTED"; then
            good=$((good + 1)) FOUND=$now
        else
            OFF_PATHS+=("$path") OFF_NOW+=("$now") OFF_WANTED+=("$WANTED") OFF_LABELS+=("$label")
            wanted_text=$WANTED
        fi
    done < <(places "$name")
    if [ ${#OFF_PATHS[@]} -gt 0 ]; then
        STANDING=off WANT=$wanted_text
        FOUND="${OFF_NOW[0]}$(where_off "$good")$(beside "$name")"
    elif [ $good -gt 0 ]; then
        STANDING=ok
        [ $good = 1 ] || FOUND+=" ($good places)"
    elif [ $unreadable -gt 0 ]; then
        REASON="cannot be read"
    elif [ -z "$REASON" ]; then
        REASON="nothing of the kind here"
    fi
}

beside() { # beside NAME: what its twin says, the one of the two that is in force
    local twin=${S[$1.twin]:-} now
    [ -n "$twin" ] && now=$(value "/proc/sys/${twin//.//}") && echo " ($twin = $now)"
    return 0
}

where_off() { # where_off GOOD: the places that are off, shortly
    local count=${#OFF_PATHS[@]} text="${OFF_LABELS[0]}"
    [ -n "$text" ] || return 0
    [ "$count" -lt 2 ] || text+=" ${OFF_LABELS[1]}"
    [ "$count" -lt 3 ] || text+=" ..."
    echo " ($text: $count of $((count + $1)))"
}

examine_file() { # is the installed file ours?
    local place=${S[$1.place]}
    WANT="the content of tuning/${S[$1.from]}"
    STANDING=off
    # Units need systemd, limits.d needs PAM's directory: nothing of that is made for a machine that does not use it.
    if [ ! -d "$ROOT${place%/*}" ]; then
        STANDING=absent REASON="there is no ${place%/*}"
    elif [ ! -e "$ROOT$place" ]; then
        FOUND="not installed"
    elif [ "$(< "$ROOT$place")" = "$(< "$HOME_DIR/${S[$1.from]}")" ]; then
        STANDING=ok FOUND="installed"
    else
        FOUND="$place differs"
    fi
}
