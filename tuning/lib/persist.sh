# shellcheck shell=bash
# What makes a setting outlive a reboot: sysctl.d, udev rules, and a script that a small unit runs at boot for the rest.
#
# STATE/chosen collects lines by channel and key; the files are made of all of them, so a second `apply` of another area
# keeps what the first one chose.

readonly SYSCTL_FILE=/etc/sysctl.d/90-orbitmq.conf
readonly UDEV_FILE=/etc/udev/rules.d/90-orbitmq.rules
readonly BOOT_FILE=/etc/orbitmq/tuning-boot
readonly BOOT_UNIT=/etc/systemd/system/orbitmq-tuning.service
readonly BOOT_LINK=/etc/systemd/system/multi-user.target.wants/orbitmq-tuning.service

declare -A CHOSEN=()
declare -a CHOSEN_ORDER=()

load_chosen() {
    local channel key line
    [ -r "$STATE/chosen" ] || return 0
    while IFS=$'\t' read -r channel key line; do keep "$channel" "$key" "$line"; done < "$STATE/chosen"
}

keep() { # keep CHANNEL KEY LINE: the newest line for a key stands
    [ -n "${CHOSEN[$1$'\t'$2]:-}" ] || CHOSEN_ORDER+=("$1"$'\t'"$2")
    CHOSEN[$1$'\t'$2]=$3
}

# choose NAME PATH VALUE: what has been set now is to be set at boot.
choose() {
    local name=$1 path=$2 value=$3 card disk rule
    case ${S[$name.kind]} in
        sysctl) keep sysctl "$name" "$name = $value" ;;
        irq)
            # Numbers change from boot to boot, the card's name does not.
            for card in $(network_cards); do
                [[ " $(irqs_of "$card" | tr '\n' ' ')" != *" $(basename "${path%/*}") "* ]] || keep boot "irq $card" "irqs $card $value"
            done
            ;;
        disk)
            disk=${path#/sys/block/}
            disk=${disk%%/*}
            case $(disk_class "$disk") in
                nvme) rule='KERNEL=="nvme*"' ;;
                virtual) rule='KERNEL=="vd*|xvd*"' ;;
                md) rule="KERNEL==\"$disk\"" ;; # what is right depends on the array
                ssd) rule='KERNEL=="sd*", ATTR{queue/rotational}=="0"' ;;
                *) rule='KERNEL=="sd*", ATTR{queue/rotational}=="1"' ;;
            esac
            keep udev "$rule ${S[$name.place]}" \
                "ACTION==\"add|change\", SUBSYSTEM==\"block\", ENV{DEVTYPE}==\"disk\", $rule, ATTR{${S[$name.place]}}=\"$value\""
            ;;
        file) keep boot "$path" "value $path '$value'" ;;
    esac
}

lines_of() { # lines_of CHANNEL
    local key
    for key in "${CHOSEN_ORDER[@]}"; do
        [ "${key%%$'\t'*}" != "$1" ] || printf '%s\n' "${CHOSEN[$key]}"
    done
}

save_chosen() {
    local key
    for key in "${CHOSEN_ORDER[@]}"; do printf '%s\t%s\n' "$key" "${CHOSEN[$key]}"; done > "$STATE/chosen"
}

# persist: writes the files; says in one line each what was written or why not.
persist() {
    persist_file sysctl "$SYSCTL_FILE" "$HOME_DIR/files/header"
    contradicted
    if [ -d "$ROOT/etc/udev" ]; then
        persist_file udev "$UDEV_FILE" "$HOME_DIR/files/header"
    elif [ -n "$(lines_of udev)" ]; then
        skipped_file "$UDEV_FILE" "no udev here; the disks' settings last until the next boot"
    fi
    [ -n "$(lines_of boot)" ] || return 0
    if [ ! -d "$ROOT/etc/systemd/system" ]; then
        skipped_file "$BOOT_FILE" "no systemd here; $(lines_of boot | wc -l) settings last until the next boot"
        return 0
    fi
    persist_file boot "$BOOT_FILE" "$HOME_DIR/files/boot-header"
    place_file "$BOOT_UNIT" "$HOME_DIR/systemd/orbitmq-tuning.service" || return 0
    remember_file "$BOOT_LINK"
    mkdir -p "$ROOT${BOOT_LINK%/*}" && ln -sfn "$BOOT_UNIT" "$ROOT$BOOT_LINK"
}

persist_file() { # persist_file CHANNEL PATH HEADER
    local text
    text=$(lines_of "$1")
    [ -n "$text" ] || return 0
    { cat "$3" && printf '%s\n' "$text"; } > "$STATE/new"
    place_file "$2" "$STATE/new"
    rm -f "$STATE/new"
}

# contradicted: warns of files that set one of ours too and are read later; those win at boot.
contradicted() {
    local file line key value
    for file in "$ROOT"/etc/sysctl.d/*.conf "$ROOT/etc/sysctl.conf"; do
        [ -r "$file" ] && { [[ ${file##*/} > ${SYSCTL_FILE##*/} ]] || [ "${file##*/}" = sysctl.conf ]; } || continue
        while IFS= read -r line; do
            [[ $line =~ ^[[:space:]]*-?([a-z0-9_./-]+)[[:space:]]*=[[:space:]]*(.*)$ ]] || continue
            key=${BASH_REMATCH[1]//\//.} value=${BASH_REMATCH[2]}
            line=${CHOSEN[sysctl$'\t'$key]:-}
            if [ -n "$line" ] && ! same "$value" "${line#*= }"; then
                printf '  beware   %s sets %s = %s and is read later\n' "${file#"$ROOT"}" "$key" "$value"
            fi
        done < "$file"
    done
}

# tell_system: the running system should read what was written or removed. Nothing here may fail the whole.
tell_system() {
    [ -z "$ROOT" ] || return 0
    if [ -d /run/systemd/system ] && command -v systemctl > /dev/null; then systemctl daemon-reload > /dev/null 2>&1; fi
    if [ -d /run/udev ] && command -v udevadm > /dev/null; then udevadm control --reload > /dev/null 2>&1; fi
    return 0
}
