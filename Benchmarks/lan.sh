# The part of `make bench` that is about two guests and the network between them: on
# Roost a house of two with a switch, on QEMU two processes with `-netdev socket`,
# which carries Ethernet frames over TCP. Sourced by Benchmarks/run.
#
# One guest serves, the other asks, and says what it has measured (guest/devices).

lan_runs=${BENCH_RUNS:-3} lan_seconds=${BENCH_SECONDS:-1}
lan_cpus='max qemu64'
[ $have_qemu = yes ] || lan_cpus=
lan_server=192.0.2.1 lan_client=192.0.2.2 lan_port=7
# Where one QEMU waits for the other.
socket_port=$((20000 + $$ % 10000))

make_device_initramfs
tsc_khz=$("$out/../release/RoostBench" tsc)

# MARK: Guests

serve="serve $lan_server $lan_port"
ask="net lan $lan_client $lan_server $lan_port $lan_seconds"

# All leave a command in `guest`: for Roost both guests, for QEMU the one that asks;
# its server is in `server`.
lan_guests() { # roost|max|qemu64
    local append="$append rdinit=/devices" initramfs=$out/initramfs.both devices
    server=()
    if [ "$1" = roost ]; then
        { echo '{ "guests": ['
            house_guest server "$serve"
            echo ,
            house_guest client "$ask"
            echo '] }'
        } >"$out/house.json"
        guest=("$roost" up "$out/house.json")
        return
    fi
    local machine=microvm
    # As in devices.sh.
    append="$append tsc=reliable tsc_early_khz=$tsc_khz"
    # shellcheck disable=SC2086
    {
        socket_card "listen=127.0.0.1:$socket_port" 52:54:00:12:34:57
        qemu_guest "$1" $serve
        server=("${guest[@]}")
        socket_card "connect=127.0.0.1:$socket_port" 52:54:00:12:34:56
        qemu_guest "$1" $ask
    }
}
house_guest() { # name words-for-it
    printf '{ "name": "%s", "kernel": "%s", "initrd": "%s", "append": "%s -- %s", ' "$1" "$kernel" "$initramfs" "$append" "$2"
    printf '"memory": "%s", "engine": "%s", "net": "lan0", "rng": false }\n' "$memory" "$engine"
}
socket_card() { # listen|connect=… address
    devices=(-global virtio-mmio.force-legacy=false -netdev "socket,id=net,$1"
        -device "virtio-net-device,netdev=net,mac=$2")
}

# As `measure`, but a server does not end by itself. In a house a guest's lines begin with its name.
measure_lan() { # file command…
    local file=$1 line lines ended=1
    shift
    : >"$file"
    if [ ${#server[@]} -gt 0 ] && ! start_server "$file"; then
        end_server
        return 1
    fi
    exec {lines}< <(exec "$@" </dev/null 2>"$file.errors")
    pid=$!
    while IFS= read -r -t "$limit" -u "$lines" line; do
        line=${line%$'\r'}
        line=${line#client*| }
        case $line in
        'result '*) echo "$line" >>"$file" ;;
        'workload end') ended=0; break ;;
        esac
    done
    exec {lines}<&-
    end_guest
    end_server
    return $ended
}

server_pid=
start_server() { # file
    local line lines
    exec {lines}< <(exec "${server[@]}" </dev/null 2>"$1.server-errors")
    server_pid=$!
    server_lines=$lines
    while IFS= read -r -t "$limit" -u "$lines" line; do
        case $line in 'workload serves'*) return 0 ;; esac
    done
    return 1
}
end_server() {
    [ -n "$server_pid" ] || return 0
    kill -KILL "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
    exec {server_lines}<&-
    server_pid=
}
trap 'end_guest; end_server' EXIT

# MARK: Turn by turn

boots=0 hung_boots=0
load_before=$(cut -d' ' -f1 /proc/loadavg)
if "$roost" up --help >/dev/null 2>&1; then
    for run in $(seq "$lan_runs"); do
        for who in roost $lan_cpus; do
            say "run $run of $lan_runs: two guests, $who"
            file=$out/device-$who.lan.$run
            lan_guests "$who"
            if [ "$who" = roost ]; then
                measure_lan "$file" "${guest[@]}" || die "two guests do not end on Roost: $(tail -1 "$file.errors")"
            else
                # A figure that is not there, if nothing helps.
                insist measure_lan "$file" || rm -f "$file"
            fi
        done
    done
    load_after=$(cut -d' ' -f1 /proc/loadavg)
    report_lan >"$out/lan.md"
else
    say 'this roost has no houses, and so no networks between guests'
fi
