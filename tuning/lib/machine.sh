# shellcheck shell=bash
# What this machine is: memory, CPUs, disks by class, network cards, the store's file systems.

RAM_KIB=0
declare -a CPUS=()

look_at_machine() {
    local key figure rest
    while read -r key figure rest; do
        [ "$key" = MemTotal: ] && RAM_KIB=$figure
    done < "$ROOT/proc/meminfo"
    : "${rest:-}"
    [ "$RAM_KIB" -gt 0 ] || die "$ROOT/proc/meminfo does not say how much memory there is"
    local cpus=0
    [ -r "$ROOT/sys/devices/system/cpu/online" ] && cpus=$(< "$ROOT/sys/devices/system/cpu/online")
    mapfile -t CPUS < <(expand_list "$cpus")
    # The broker's own choice: the first one, from 4 CPUs up.
    [ -n "$WRITER_CPU" ] || WRITER_CPU=${CPUS[0]}
    [ ${#STORES[@]} -gt 0 ] || stores_of_broker_conf
}

expand_list() { # expand_list 0-2,5: one number a line
    local part
    for part in ${1//,/ }; do seq "${part%-*}" "${part#*-}"; done
}

has_writer_cpu() { [ ${#CPUS[@]} -ge 4 ]; }

other_cpus() { # all but the writer's, one a line
    local cpu
    for cpu in "${CPUS[@]}"; do [ "$cpu" = "$WRITER_CPU" ] || echo "$cpu"; done
}

cpu_mask() { # cpu_mask: the CPUs on standard input as the kernel writes masks, 32 bits a group
    local cpu top=0 text='' group
    local -a words=()
    while read -r cpu; do
        group=$((cpu / 32))
        words[group]=$((${words[group]:-0} | 1 << cpu % 32))
        [ "$group" -gt "$top" ] && top=$group
    done
    for ((group = top; group >= 0; group--)); do
        # shellcheck disable=SC2059 # the first group is short, the others have eight digits
        printf -v text "%s$([ $group = $top ] && echo %x || echo ,%08x)" "$text" "${words[group]:-0}"
    done
    echo "$text"
}

disk_class() { # disk_class NAME: nvme, ssd, hdd, virtual, md; nothing for what is no disk of its own
    local queue=$ROOT/sys/block/$1/queue
    case $1 in
        loop* | ram* | zram* | sr* | fd* | dm-* | nbd*) ;;
        md*) echo md ;;
        nvme*) echo nvme ;;
        vd* | xvd*) echo virtual ;;
        *) [ -r "$queue/rotational" ] && if [ "$(< "$queue/rotational")" = 0 ]; then echo ssd; else echo hdd; fi ;;
    esac
}

disks_of() { # disks_of CLASS...: the names of such disks
    local path name
    for path in "$ROOT"/sys/block/*; do
        name=${path##*/}
        [[ -e $path && " $* " == *" $(disk_class "$name") "* ]] && echo "$name"
    done
    return 0
}

network_cards() { # names of interfaces with a device behind them
    local path
    for path in "$ROOT"/sys/class/net/*; do
        [ -e "$path/device" ] && echo "${path##*/}"
    done
    return 0
}

irqs_of() { # irqs_of CARD: the numbers of its interrupts; a virtio card's belong to the bus device above it
    local dir irq
    for dir in "$ROOT/sys/class/net/$1/device/msi_irqs" "$ROOT/sys/class/net/$1/device/../msi_irqs"; do
        [ -d "$dir" ] || continue
        for irq in "$dir"/*; do [ -e "$irq" ] && echo "${irq##*/}"; done
        return 0
    done
}

stores_of_broker_conf() { # where broker.conf keeps things, else where our unit does
    local line dir
    local -a dirs=()
    if [ -r "$ROOT/etc/orbitmq/broker.conf" ]; then
        while IFS= read -r line; do
            [[ $line =~ ^[[:space:]]*storePath(RootDir|CommitLog)[[:space:]]*=[[:space:]]*(.*[^[:space:]]) ]] || continue
            IFS=, read -ra dirs <<< "${BASH_REMATCH[2]}"
            for dir in "${dirs[@]}"; do STORES+=("$dir"); done
        done < "$ROOT/etc/orbitmq/broker.conf"
    fi
    [ ${#STORES[@]} -gt 0 ] || STORES=(/var/lib/orbitmq)
}

# mount_of DIR: mount point, file system, options of the mount and of the file system (joined by a comma), device numbers
mount_of() {
    local dir best='' answer='' id parent device from point options rest kind source super
    dir=$(readlink -m -- "$1")
    while read -r id parent device from point options rest; do
        [[ $point == / || $dir == "$point" || $dir == "$point"/* ]] || continue
        [ ${#point} -ge ${#best} ] || continue
        best=$point
        read -r kind source super <<< "${rest##*- }"
        answer="$point $kind $options,$super $device"
    done < "$ROOT/proc/self/mountinfo"
    : "$id" "$parent" "$from" "$source"
    [ -n "$answer" ] && echo "$answer"
}
