# The part of `make bench` that is about devices: fio on a disk, streams and round
# trips through both networks, and a whole Debian up to its login prompt. Sourced by
# Benchmarks/run.
#
# Roost's own initramfs is everybody's: its /init boots the Debian, and
# guest/devices does all the rest.

device_runs=${BENCH_RUNS:-3} device_seconds=${BENCH_SECONDS:-1}
device_cpus='max qemu64'
[ $have_qemu = yes ] || device_cpus=
address=192.0.2.2 router=192.0.2.1 tap_port=7

# MARK: What there is

# A Debian with fio, of these very modules; made once.
image=$cache/bench/$(basename "$package").ext4
mkdir -p "$cache/bench"
have_debian=yes
ROOST=$roost tools/make-debian --size 2G --packages fio "$image" >&2 || have_debian=no

# A TAP needs root, but only over the network that it is in: each guest gets one
# of its own, in which the host is a program in the same namespace.
namespace=(unshare --user --map-root-user --net --)
have_tap=no
if "${namespace[@]}" ip tuntap add dev tap0 mode tap 2>/dev/null; then have_tap=yes; fi

without=
[ $have_debian = yes ] || without="${without}there is no Debian here (see tools/make-debian), and so no disk's figures. "
[ $have_tap = yes ] || without="${without}a TAP cannot be made here, not even in a namespace of one's own."
[ -z "$without" ] || say "$without"

make_device_initramfs
tsc_khz=$("$out/../release/RoostBench" tsc)
# Each block is there, and in the page cache.
head -c 256M /dev/urandom >"$out/disk"
sync "$out/disk"

exec {peer}< <(exec "$out/peer" serve 0)
read -r user_port <&"$peer"

# MARK: Guests

# All leave a command in `guest`.
device_guest() { # roost|max|qemu64 kind
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
        local machine=microvm
        # Else it hangs while the kernel finds out how fast the TSC is, or the guest's clock has 4 ms.
        append="$append tsc=reliable tsc_early_khz=$tsc_khz"
        # Virtio 1 there too.
        devices+=(-global virtio-mmio.force-legacy=false)
        qemu_guest "$1" $words
    fi
    [ "$2" != tap ] || guest=("${namespace[@]}" sh -c "
        ip tuntap add dev tap0 mode tap && ip addr add $router/24 dev tap0 && ip link set tap0 up || exit
        '$out/peer' serve $tap_port >/dev/null &
        exec \"\$@\"" tap "${guest[@]}")
}
give() { # roost|max|qemu64 device file serial on|off
    case $1-$2 in
    roost-disk) devices+=(--disk "$3,format=raw,serial=$4$([ "$5" = off ] || echo ,ro)") ;;
    roost-user) devices+=(--net user) ;;
    roost-tap) devices+=(--net tap=tap0) ;;
    # io_uring as here.
    *-disk)
        devices+=(-drive "if=none,id=$4,file=$3,format=raw,aio=io_uring,discard=unmap,readonly=$5"
            -device "virtio-blk-device,drive=$4,serial=$4") ;;
    *-user) devices+=(-netdev user,id=net -device virtio-net-device,netdev=net) ;;
    *-tap)
        devices+=(-netdev tap,id=net,ifname=tap0,script=no,downscript=no
            -device virtio-net-device,netdev=net) ;;
    esac
}

# As `measure`, for a guest that ends at its login prompt, which is no line.
measure_login() { # file command…
    local file=$1 begin lines words ended=1
    shift
    : >"$file"
    # One of its own, that nobody has used.
    cp --sparse=always "$image" "$out/debian.ext4"
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
boots=0 hung_boots=0

measure_device() { # roost|max|qemu64 kind run
    local how=measure file=$out/device-$1.$2.$3
    say "run $3 of $device_runs: $2, $1"
    [ "$2" != login ] || how=measure_login
    device_guest "$1" "$2"
    if [ "$1" = roost ]; then
        "$how" "$file" "${guest[@]}" || die "$2 does not end on Roost: $(tail -1 "$file.errors")"
    else
        # A figure that is not there, if nothing helps.
        insist "$how" "$file" || rm -f "$file"
    fi
}

load_before=$(cut -d' ' -f1 /proc/loadavg)
for run in $(seq "$device_runs"); do
    for kind in $kinds; do
        for who in roost $device_cpus; do measure_device "$who" "$kind" "$run"; done
    done
done
load_after=$(cut -d' ' -f1 /proc/loadavg)
exec {peer}<&-
rm -f "$out/disk" "$out/debian.ext4"
report_devices >"$out/devices.md"
