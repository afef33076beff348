# shellcheck shell=bash
# Which value a setting should have, from its `want`, this machine and what it is now.
#
# want NAME PATH NOW sets WANTED: NOW itself if that will do, else the value to be written. It fails with REASON if the
# setting does not concern this machine.

want() {
    local -a w
    read -ra w <<< "${S[$1.want]}"
    local now=$3 option
    WANTED='' REASON=''
    case ${w[0]} in
        is) WANTED=$(figure "${w[1]}") ;;
        at-least) WANTED=$(figure "${w[1]}") && [[ $now =~ ^[0-9]+$ ]] && ! less "$now" "$WANTED" && WANTED=$now ;;
        at-most) WANTED=$(figure "${w[1]}") && [[ $now =~ ^[0-9]+$ ]] && ! less "$WANTED" "$now" && WANTED=$now ;;
        within) WANTED=${w[4]} && ! less "$now" "${w[1]}" && ! less "${w[2]}" "$now" && WANTED=$now ;;
        one-of)
            WANTED=${w[1]}
            for option in "${w[@]:1}"; do [ "$option" = "$now" ] && WANTED=$now; done
            ;;
        computed) "compute_${w[1]}" "$2" "$now" || return 1 ;;
        *) die "[$1] want: ${S[$1.want]}" ;;
    esac
    return 0
}

figure() { if [[ $1 == @* ]]; then "want_${1#@}"; else echo "$1"; fi; }

# Figures such as fs.file-max's default, 2^63 - 1, fit; longer ones are large.
less() { if [ ${#1} -lt 19 ] && [ ${#2} -lt 19 ]; then [ "$1" -lt "$2" ]; else [ ${#1} -lt ${#2} ] || [[ ${#1} == "${#2}" && $1 < $2 ]]; fi; }

clamp() { # clamp LOW FIGURE HIGH
    if [ "$2" -lt "$1" ]; then echo "$1"; elif [ "$2" -gt "$3" ]; then echo "$3"; else echo "$2"; fi
}

# Half a percent of the memory, 64 MiB to 2 GiB, and never more than a twentieth of it.
want_min_free_kib() {
    local kib
    kib=$(clamp 65536 $((RAM_KIB / 200)) 2097152)
    clamp 1024 "$kib" $((RAM_KIB / 20))
}

# The kernel uses the figure in bytes or the ratio, whichever was written last. A limit in bytes that is low enough may stay.
dirty_limit() { # dirty_limit NOW WANTED
    if [ "$1" != 0 ] && ! less $(($2 * 2)) "$1"; then WANTED=$1; else WANTED=$2; fi
}
compute_dirty_background() { dirty_limit "$2" "$(clamp $((128 << 20)) $((RAM_KIB * 1024 / 64)) $((1 << 30)))"; }
compute_dirty() { dirty_limit "$2" "$(clamp $((512 << 20)) $((RAM_KIB * 1024 / 16)) $((8 << 30)))"; }

# Three figures: the ceiling is raised, the first two stay.
tcp_ceiling() { # tcp_ceiling NOW BYTES
    local least usual most
    read -r least usual most <<< "$1"
    if less "$most" "$2"; then WANTED="$least $usual $2"; else WANTED="$least $usual $most"; fi
}
compute_tcp_rmem() { tcp_ceiling "$2" $((16 << 20)); }
compute_tcp_wmem() { tcp_ceiling "$2" $((16 << 20)); }

# Two stripes of data; RAID10 of n disks with two copies has n/2 of them. Anything from half to four times that stays.
compute_md_read_ahead() {
    local md=$ROOT${1%/queue/*}/md chunk disks kib
    [ -r "$md/chunk_size" ] && chunk=$(< "$md/chunk_size") && disks=$(< "$md/raid_disks") || { REASON="no chunks" && return 1; }
    kib=$((2 * chunk / 1024 * (disks / 2)))
    [ "$kib" -gt 0 ] || { REASON="no chunks" && return 1; }
    if less "$2" $((kib / 2)) || less $((kib * 4)) "$2"; then WANTED=$kib; else WANTED=$2; fi
}

# 1 for states that take more than 50 µs to leave; the others stay as they are.
compute_deep_idle() {
    local latency=0
    [ -r "$ROOT${1%/*}/latency" ] && latency=$(< "$ROOT${1%/*}/latency")
    if [ "$latency" -gt 50 ]; then WANTED=1; else WANTED=$2; fi
}

# Only the governor of that name polls.
compute_halt_poll() {
    local governor=none
    [ -r "$ROOT/sys/devices/system/cpu/cpuidle/current_governor" ] && governor=$(< "$ROOT/sys/devices/system/cpu/cpuidle/current_governor")
    [ "$governor" = haltpoll ] || { REASON="the governor of idle CPUs is $governor" && return 1; }
    if less "$2" 200000; then WANTED=200000; else WANTED=$2; fi
}

few_cpus() { has_writer_cpu && return 1 || REASON="with fewer than 4 CPUs the writer has none to itself"; }

compute_irq_cpus() {
    local cpu
    few_cpus && return 1
    WANTED=$2
    for cpu in $(expand_list "$2"); do
        [ "$cpu" != "$WRITER_CPU" ] || WANTED=$(other_cpus | join_ranges)
    done
}

join_ranges() { # numbers on standard input as 1-3,5
    local first='' last='' n text=''
    while read -r n; do
        if [ -n "$last" ] && [ "$n" = $((last + 1)) ]; then last=$n && continue; fi
        [ -n "$first" ] && text+=",$first$([ "$first" = "$last" ] || echo "-$last")"
        first=$n last=$n
    done
    text+=",$first$([ "$first" = "$last" ] || echo "-$last")"
    echo "${text#,}"
}

queues_beside() { # queues_beside PATH rx|tx: how many queues of this kind the card has
    local -a all=("$ROOT${1%/*/*}/$2"-*)
    echo ${#all[@]}
}

is_card() { [ -e "$ROOT${1%/queues/*}/device" ] || { REASON="no network card" && return 1; }; }

empty_mask() { [[ ${1//[0,]/} == '' ]]; }

compute_rps() {
    is_card "$1" || return 1
    few_cpus && return 1
    if [ $(($(queues_beside "$1" rx) * 2)) -ge ${#CPUS[@]} ]; then
        WANTED=$2 # the card spreads by itself
    elif empty_mask "$2"; then
        WANTED=$(other_cpus | cpu_mask)
    else
        WANTED=$2
    fi
}

compute_xps() {
    is_card "$1" || return 1
    local queues number=${1%/*} i
    number=${number##*-}
    queues=$(queues_beside "$1" tx)
    [ "$queues" -gt 1 ] || { REASON="a single send queue" && return 1; }
    if empty_mask "$2"; then
        WANTED=$(for i in "${!CPUS[@]}"; do [ $((i % queues)) != "$number" ] || echo "${CPUS[i]}"; done | cpu_mask)
    else
        WANTED=$2
    fi
}
