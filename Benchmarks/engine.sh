# The part of `make bench` that is about engines: the workload natively, on Roost
# and on QEMU's TCG, and what the engines say of themselves. Sourced by Benchmarks/run.

make_initramfs "$out/workload" init "$busybox" busybox >"$initramfs"

# MARK: The race

# QEMU's turn. If its microvm does not come to the end five times in a row, its
# machine is pc from then on, and what it has missed is made up for.
race_qemu() { # run
    local cpu earlier
    for cpu in max qemu64; do
        say "run $1 of $runs: QEMU TCG, -cpu $cpu"
        qemu_guest "$cpu" "$time"
        insist measure "$out/$cpu.$1" && continue
        rm -f "$out/$cpu.$1"
        [ "$machine" = microvm ] || continue
        say "QEMU's microvm hangs too often here; its machine is pc from now on"
        machine=pc boots=0 hung_boots=0
        rm -f "$out"/max.* "$out"/qemu64.*
        for earlier in $(seq "$1"); do race_qemu "$earlier"; done
        return
    done
}

load_before=$(cut -d' ' -f1 /proc/loadavg)
for run in $(seq "$runs"); do
    say "run $run of $runs: native"
    measure "$out/native.$run" "$out/workload" "$time" || die "the workload does not run here: $(tail -1 "$out/native.$run.errors")"
    say "run $run of $runs: Roost"
    roost_guest "$engine" "$time"
    measure "$out/roost.$run" "${guest[@]}" || die "the workload does not end on Roost: $(tail -1 "$out/roost.$run.errors")"
    say "run $run of $runs: Roost, interpreter"
    # shellcheck disable=SC2086
    roost_guest interpreter "$time" $interpreter_rows
    measure "$out/interpreter.$run" "${guest[@]}" || die "the workload does not end on the Interpreter: $(tail -1 "$out/interpreter.$run.errors")"
    if [ $have_qemu = yes ]; then race_qemu "$run"; fi
done

# MARK: Inside the engines

# Two guests for what an engine says about itself at the end: one that does the
# table's work, and one whose code is always new, until the code cache has gone round.
say "the engine's own figures"
for work in usual 'new 5000 new-code'; do
    read -r name words <<<"$work"
    # shellcheck disable=SC2086
    roost_guest "$engine" ${words:-$time}
    guest+=(--verbose)
    watch=yes measure "$out/engine-$name" "${guest[@]}" || die "the workload does not end on Roost: $(tail -1 "$out/engine-$name.errors")"
done

for run in $(seq "$runs"); do
    say "run $run of $runs: events"
    "$out/../release/RoostBench" "$out/integer.flat" >"$out/events.$run"
done

# MARK: At rest

roost_at_rest() { # engine
    rm -f "$out/in"
    mkfifo "$out/in"
    "$roost" run --engine "$1" --memory "$memory" <"$out/in" >"$out/idle" 2>"$out/idle.errors" &
    pid=$!
    exec 9>"$out/in"
    echo 'echo the shell is there' >&9
    wait_for 'the shell is there' || die 'no shell to be idle in'
    rest=$(at_rest "$pid")
    exec 9>&-
    end_guest
}
qemu_at_rest() {
    local try
    for try in 1 2 3 4 5; do
        qemu_guest qemu64 0 idle
        "${guest[@]}" </dev/null >"$out/idle" 2>"$out/idle.errors" &
        pid=$!
        if wait_for 'workload begin'; then
            rest=$(at_rest "$pid")
            end_guest
            return
        fi
        end_guest
    done
    rest='- -'
}
# Waits until the guest has said so, and has settled.
wait_for() { # text
    local second
    for second in $(seq "$limit"); do
        sleep 1
        if grep -q "$1" "$out/idle"; then sleep 2; return; fi
    done
    return 1
}

say 'idle guests'
roost_at_rest "$engine"; roost_rest=$rest
roost_at_rest interpreter; interpreter_rest=$rest
qemu_rest='- -'
if [ $have_qemu = yes ]; then qemu_at_rest; qemu_rest=$rest; fi

load_after=$(cut -d' ' -f1 /proc/loadavg)
report >"$out/engine.md"
