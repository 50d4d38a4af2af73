# The part of `make bench` that is about devices: fio on a disk, streams and round
# trips through both networks, and a whole Debian up to its login prompt. Sourced by
# Benchmarks/run.
#
# Roost's own initramfs is everybody's: its /init boots the Debian, and
# guest/devices, put on top of it, does all the rest.

device_runs=${BENCH_RUNS:-3} device_seconds=${BENCH_SECONDS:-2}
device_machine=microvm
address=192.0.2.2 router=192.0.2.1 tap_port=7

# MARK: What there is

# A Debian with fio, of these very modules; made once.
image=$cache/bench/$(basename "$package").ext4
mkdir -p "$cache/bench"
have_debian=yes
ROOST=$roost tools/make-debian --size 2G --packages fio "$image" >&2 || have_debian=no

# A TAP needs root, but only over the network that it is in: each guest gets one
# of its own, in which the host is a program in the same namespace.
in_namespace() { unshare --user --map-root-user --net -- "$@"; }
have_tap=no
if in_namespace ip tuntap add dev tap0 mode tap 2>/dev/null; then have_tap=yes; fi

without=
[ $have_debian = yes ] || without="${without}there is no Debian here (see tools/make-debian), and so no disk's figures. "
[ $have_tap = yes ] || without="${without}a TAP cannot be made here, not even in a namespace of one's own."
[ -z "$without" ] || say "$without"
[ -n "$without" ] || without='nothing was left out.'

"$out/../release/RoostBench" initramfs "$package" "$busybox" >"$out/initramfs.roost"
make_initramfs "$PWD/Benchmarks/guest/devices" devices "$out/peer" peer >"$out/initramfs.devices"
cat "$out/initramfs.roost" "$out/initramfs.devices" >"$out/initramfs.both"
tsc_khz=$("$out/../release/RoostBench" tsc)
# Each block is there, and in the page cache.
head -c 256M /dev/urandom >"$out/disk"
sync "$out/disk"

exec {peer}< <(exec "$out/peer" serve 0)
read -r user_port <&"$peer"

# MARK: Guests

# All leave a command in `guest`.
device_guest() { # roost|qemu kind
    local append="$append rdinit=/devices" initramfs=$out/initramfs.both devices=() words
    case $2 in
    disk)
        words="disk $device_seconds"
        give "$1" disk "$image" debian on
        give "$1" disk "$out/disk" bench off ;;
    user)
        words="net user 10.0.2.15 10.0.2.2 $user_port $device_seconds"
        give "$1" user ;;
    tap)
        words="net tap $address $router $tap_port $device_seconds"
        give "$1" tap ;;
    login)
        append="${append% *} root=/dev/vda rw" initramfs=$out/initramfs.roost words=
        give "$1" disk "$out/debian.ext4" debian off
        give "$1" user ;;
    esac
    # shellcheck disable=SC2086
    if [ "$1" = roost ]; then
        devices+=(--no-rng)
        roost_guest "$engine" $words
    else
        local machine=$device_machine
        # It hangs while the kernel finds out how fast the TSC is, or leaves it with a clock of 4 ms.
        append="$append tsc=reliable tsc_early_khz=$tsc_khz"
        # Virtio 1 there too.
        devices+=(-global virtio-mmio.force-legacy=false)
        qemu_guest "$device_cpu" $words
    fi
    [ "$2" != tap ] || guest=(unshare --user --map-root-user --net -- sh -c "
        ip tuntap add dev tap0 mode tap && ip addr add $router/24 dev tap0 && ip link set tap0 up || exit
        '$out/peer' serve $tap_port >/dev/null &
        exec \"\$@\"" tap "${guest[@]}")
}
give() { # roost|qemu device file serial on|off
    case $1-$2 in
    roost-disk) devices+=(--disk "$3,format=raw,serial=$4$([ "$5" = off ] || echo ,ro)") ;;
    roost-user) devices+=(--net user) ;;
    roost-tap) devices+=(--net tap=tap0) ;;
    # io_uring as here.
    qemu-disk)
        devices+=(-drive "if=none,id=$4,file=$3,format=raw,aio=io_uring,discard=unmap,readonly=$5"
            -device "virtio-blk-device,drive=$4,serial=$4") ;;
    qemu-user) devices+=(-netdev user,id=net -device virtio-net-device,netdev=net) ;;
    qemu-tap)
        devices+=(-netdev tap,id=net,ifname=tap0,script=no,downscript=no
            -device virtio-net-device,netdev=net) ;;
    esac
}

# As `measure`, for a guest that ends at its login prompt, which is no line.
measure_login() { # file command…
    local file=$1 begin lines words ended=1
    shift
    : >"$file"
    begin=${EPOCHREALTIME/[.,]/}
    exec {lines}< <(exec "$@" </dev/null 2>"$file.errors")
    pid=$!
    while IFS= read -r -d : -t $((2 * limit)) -u "$lines" words; do
        case $words in *' login')
            echo "result login $(((${EPOCHREALTIME/[.,]/} - begin) * 1000))" >>"$file"
            ended=0
            break ;;
        esac
    done
    exec {lines}<&-
    end_guest
    return $ended
}

# MARK: Turn by turn

kinds=user
[ $have_tap = no ] || kinds="$kinds tap"
[ $have_debian = no ] || kinds="disk $kinds login"
device_cpu=max
qemu_cpus="\`-cpu $device_cpu\`"
boots=0 hung_boots=0

measure_devices() { # roost|qemu kind run
    local how=measure file=$out/device-$1.$2.$3
    say "run $3 of $device_runs: $2, $1"
    if [ "$2" = login ]; then
        how=measure_login
        # An own one, that nobody has used.
        cp --sparse=always "$image" "$out/debian.ext4"
    fi
    device_guest "$1" "$2"
    if [ "$1" = roost ]; then "$how" "$file" "${guest[@]}"; else insist "$how" "$file"; fi
}

load_before=$(cut -d' ' -f1 /proc/loadavg)
for run in $(seq "$device_runs"); do
    for kind in $kinds; do
        measure_devices roost "$kind" "$run" || die "$kind does not end on Roost: $(tail -1 "$out/device-roost.$kind.$run.errors")"
        [ $have_qemu = yes ] || continue
        # Its figures of this kind have a gap then.
        measure_devices qemu "$kind" "$run" || rm -f "$out/device-qemu.$kind.$run"
    done
done
load_after=$(cut -d' ' -f1 /proc/loadavg)
exec {peer}<&-
rm -f "$out/disk" "$out/debian.ext4"
report_devices >"$out/devices.md"
