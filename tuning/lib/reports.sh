# shellcheck shell=bash
# What is looked at only: each function sets STANDING (ok, off, absent), FOUND and, for absent, REASON.

stand() { # stand ok|off TEXT
    STANDING=$1 FOUND=$2
}

report_md() {
    local md name level chunk bitmap missing problems='' found=''
    for name in $(disks_of md); do
        md=$ROOT/sys/block/$name/md
        [ -r "$md/level" ] || continue
        level=$(< "$md/level") chunk=0 bitmap=none missing=0
        [ -r "$md/chunk_size" ] && chunk=$(($(< "$md/chunk_size") / 1024))
        [ -r "$md/bitmap/location" ] && bitmap=$(< "$md/bitmap/location")
        [ -r "$md/degraded" ] && missing=$(< "$md/degraded")
        found+=", $name $level chunk $chunk KiB bitmap $bitmap"
        case $level in raid10 | raid1) ;; *) problems+=", $name is $level" ;; esac
        if [ "$level" != raid1 ] && { [ "$chunk" -lt 64 ] || [ "$chunk" -gt 1024 ]; }; then problems+=", $name has chunks of $chunk KiB"; fi
        [ "$bitmap" != none ] || problems+=", $name has no bitmap (mdadm --grow --bitmap=internal /dev/$name)"
        [ "$missing" = 0 ] || problems+=", $name lacks $missing disk(s)"
    done
    if [ -z "$found" ]; then
        REASON="no md array"
    elif [ -n "$problems" ]; then
        stand off "${problems#, }"
    else
        stand ok "${found#, }"
    fi
}

report_alignment() {
    local disk part start offset count=0 problems=''
    for disk in $(disks_of nvme ssd hdd virtual md); do
        for part in "$ROOT/sys/block/$disk/$disk"*; do
            [ -r "$part/start" ] || continue
            count=$((count + 1)) offset=0
            start=$(< "$part/start")
            [ -r "$part/alignment_offset" ] && offset=$(< "$part/alignment_offset")
            # 2048 sectors of 512 bytes are 1 MiB.
            [ $((start % 2048)) = 0 ] && [ "$offset" = 0 ] || problems+=", ${part##*/} begins at sector $start"
        done
    done
    if [ $count = 0 ]; then
        REASON="no partitions"
    elif [ -n "$problems" ]; then
        stand off "${problems#, }"
    else
        stand ok "$count partition(s)"
    fi
}

report_write_cache() {
    local disk kept='' text=''
    for disk in $(disks_of nvme ssd hdd virtual); do
        kept=$ROOT/sys/block/$disk/queue/write_cache
        [ -r "$kept" ] && [ "$(< "$kept")" = "write back" ] && text+=" $disk"
    done
    if [ -z "$kept" ]; then
        REASON="no disk of its own"
    elif [ -n "$text" ]; then
        stand off "write back:$text"
    else
        stand ok "write through"
    fi
}

# each_store FUNCTION: calls it with a store's directory and what mount_of says, and joins what it complains about.
each_store() {
    local dir mounted problem problems='' seen=''
    for dir in "${STORES[@]}"; do
        mounted=$(mount_of "$dir") || continue
        seen+=", $dir"
        # shellcheck disable=SC2086 # four words
        problem=$("$1" "$dir" $mounted) && continue
        problems+=", $problem"
    done
    if [ -z "$seen" ]; then
        REASON="cannot tell where the store lies"
    elif [ -n "$problems" ]; then
        stand off "${problems#, }"
    else
        stand ok "${seen#, }"
    fi
}

has_option() { [[ ,$1, == *,$2,* ]]; } # has_option OPTIONS ONE

# DIR MOUNT_POINT TYPE OPTIONS DEVICE
filesystem_of() { case $3 in ext4 | xfs) return 0 ;; *) echo "$1 is on $3" && return 1 ;; esac }
barriers_of() { ! has_option "$4" nobarrier && ! has_option "$4" barrier=0 || { echo "$2 is mounted without barriers" && return 1; }; }
atime_of() { has_option "$4" noatime || { echo "$2 is not mounted with noatime" && return 1; }; }
discard_of() { ! has_option "$4" discard || { echo "$2 is mounted with discard" && return 1; }; }

report_filesystem() { each_store filesystem_of; }
report_barriers() { each_store barriers_of; }
report_atime() { each_store atime_of; }
report_discard() { each_store discard_of; }

report_irqbalance() {
    local name
    few_cpus && return 0
    for name in "$ROOT"/proc/[0-9]*/comm; do
        { [ "$(< "$name")" = irqbalance ]; } 2> /dev/null || continue
        if [ -r "$ROOT/etc/default/irqbalance" ] && [[ $(< "$ROOT/etc/default/irqbalance") =~ (^|$'\n')IRQBALANCE_BANNED_CPU ]]; then
            stand ok "running, with CPUs banned"
        else
            stand off "running, free to use CPU $WRITER_CPU"
        fi
        return 0
    done
    stand ok "not running"
}

report_clocksource() {
    local now
    now=$(value /sys/devices/system/clocksource/clocksource0/current_clocksource) || { REASON="cannot be read" && return 0; }
    case $now in
        tsc | kvm-clock | hyperv_clocksource_tsc_page | arch_sys_counter) stand ok "$now" ;;
        *) stand off "$now" ;;
    esac
}

report_memlock() {
    local hard
    hard=$(ulimit -Hl)
    if [ "$hard" = unlimited ]; then stand ok unlimited; else stand off "$hard KiB"; fi
}

report_nofile() {
    local hard
    hard=$(ulimit -Hn)
    if [ "$hard" = unlimited ] || [ "$hard" -ge 65536 ]; then stand ok "$hard"; else stand off "$hard"; fi
}
