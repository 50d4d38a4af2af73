# How `make bench` makes and starts its guests. Sourced by Benchmarks/run, which sets
# $roost, $memory, $out and $limit, and $machine for QEMU. What only some guests have is
# in $append, $initramfs and $devices.

append='console=ttyS0 quiet panic=-1 mitigations=off'

# MARK: The initramfs

# One file in cpio's "newc" format: a header of thirteen numbers, the name, the
# contents, each filled up to four bytes; the file TRAILER!!! ends it.
cpio_header() { # inode mode bytes name
    printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\0' \
        "$1" "$2" 0 0 1 0 "$3" 0 0 0 0 $((${#4} + 1)) 0 "$4"
    head -c $(((4 - (110 + ${#4} + 1) % 4) % 4)) /dev/zero
}
cpio_file() { # inode file name
    local bytes
    bytes=$(stat -L -c %s "$2")
    cpio_header "$1" $((0100755)) "$bytes" "$3"
    cat "$2"
    head -c $(((4 - bytes % 4) % 4)) /dev/zero
}
make_initramfs() { # file name…
    local inode=0
    while [ $# -gt 0 ]; do
        inode=$((inode + 1))
        cpio_file $inode "$1" "$2"
        shift 2
    done
    cpio_header 0 0 0 'TRAILER!!!'
}

# Roost's own, with guest/devices on top of it.
make_device_initramfs() {
    "$out/../release/RoostBench" initramfs "$package" "$busybox" >"$out/initramfs.roost"
    make_initramfs "$PWD/Benchmarks/guest/devices" devices "$out/peer" peer >"$out/initramfs.devices"
    cat "$out/initramfs.roost" "$out/initramfs.devices" >"$out/initramfs.both"
}

# Debian's kernel and busybox, out of Roost's cache of packages; a boot fills the cache.
find_packages() {
    "$roost" run -- true </dev/null || die 'Roost does not boot'
    if [ -n "${ROOST_CACHE:-}" ]; then cache=$ROOST_CACHE
    elif [ -n "${XDG_CACHE_HOME:-}" ]; then cache=$XDG_CACHE_HOME/roost
    else cache=${HOME:-/tmp}/.cache/roost; fi
    package=$(cat "$cache/packages/linux-image-cloud-amd64.name")
    package=$cache/packages/$package
    kernel=${BENCH_KERNEL:-$(ls "$package"/boot/vmlinuz-* | tail -1)}
    busybox=$cache/packages/busybox-static/bin/busybox
    [ -f "$busybox" ] || busybox=$cache/packages/busybox-static/usr/bin/busybox
}

# MARK: Starting guests

# Both leave a command in the array `guest`: the same kernel, initramfs, command line and memory.
initramfs=$out/initramfs devices=()
roost_guest() { # engine words-for-the-workload…
    local engine=$1
    shift
    guest=("$roost" run --engine "$engine" --memory "$memory"
        --kernel "$kernel" --initrd "$initramfs" --append "$append -- $*" "${devices[@]}")
}
# Guest RAM in a file of its own, as Roost has it: so the two's other memory can be told from it alike.
qemu_guest() { # cpu words-for-the-workload…
    local cpu=$1
    shift
    guest=(qemu-system-x86_64 -M "$machine,memory-backend=ram" -accel tcg -cpu "$cpu" -m "$memory"
        -object "memory-backend-memfd,id=ram,size=$memory,share=on"
        -nodefaults -no-user-config -display none -no-reboot -serial stdio
        -kernel "$kernel" -initrd "$initramfs" -append "$append -- $*" "${devices[@]}")
}

# Runs a workload to its end. Leaves "result NAME NANOSECONDS" lines in FILE, the
# boot's time among them, and what went to standard error in FILE.errors. Fails if
# the workload said nothing for $limit seconds, or did not come to its end.
#
# With watch=yes there is a line "resident KIB" after each result too.
measure() { # file command…
    local file=$1 begin line lines ended=1
    shift
    : >"$file"
    begin=${EPOCHREALTIME/[.,]/}
    exec {lines}< <(exec "$@" </dev/null 2>"$file.errors")
    pid=$!
    while IFS= read -r -t "$limit" -u "$lines" line; do
        line=${line%$'\r'}
        case $line in
        *'workload begin') echo "result boot $(((${EPOCHREALTIME/[.,]/} - begin) * 1000))" >>"$file" ;;
        'result '*)
            echo "$line" >>"$file"
            [ "${watch:-no}" = no ] || echo "resident $(resident "$pid")" >>"$file" ;;
        *'workload end') ended=0 ;;
        esac
    done
    exec {lines}<&-
    end_guest
    return $ended
}

# Ends what $pid is, unless it has ended.
pid=
end_guest() {
    [ -n "$pid" ] || return 0
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    pid=
}
trap end_guest EXIT

# The same for QEMU's guest, which may hang: with up to five tries, which are counted.
boots=0 hung_boots=0
insist() { # measure file
    local try
    for try in 1 2 3 4 5; do
        boots=$((boots + 1))
        "$1" "$2" "${guest[@]}" && return
        hung_boots=$((hung_boots + 1))
        say "QEMU did not come to the end ($(tail -1 "$2.errors"))"
    done
    return 1
}

# MARK: What guests take

# KiB resident beyond guest RAM. What is mapped twice, as generated code is, counts once.
resident() { # pid
    awk '/^[0-9a-f]+-[0-9a-f]+ / { name = $6 }
        /^Rss:/ { all = $2 }
        /^Pss:/ && name !~ /^\/memfd:(guest-memory|memory-backend-memfd)/ { sum += name ~ /^\/memfd:/ ? $2 : all }
        END { print sum + 0 }' "/proc/$1/smaps" 2>/dev/null || true
}

# Prints what is resident, and the per mille of a core that is used in 10 s.
at_rest() { # pid
    local before after
    before=$(awk '{ print $14 + $15 }' "/proc/$1/stat")
    sleep 10
    after=$(awk '{ print $14 + $15 }' "/proc/$1/stat")
    echo "$(resident "$1") $(awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN { print ticks / hz / 10 * 1000 }')"
}
