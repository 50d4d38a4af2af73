# The part of `make bench` that is about pages and bells that guests share. Sourced by
# Benchmarks/run.
#
# Two Linux guests do, round after round, the same by granted pages and by TCP over the
# switch between them (guest/grants-lender and grants-borrower); two guests in Swift send
# through a ring of pages, and copy as much within one of them. There is nobody to compare
# with: QEMU has no such thing without Xen below it.

grants_runs=${BENCH_RUNS:-5} grants_seconds=${BENCH_SECONDS:-1}
load_before=$(cut -d' ' -f1 /proc/loadavg)
make -s guests >&2
make -s -C Tests/GrantPrograms OUT="$out" >&2
make -s -C Examples/sharing OUT="$out" "$out/ring" >&2

# MARK: Two Linux guests

grants_files='"'$out'/probe", "'$out'/ring", "'$out'/peer", "'$PWD'/Benchmarks/guest/grants-talk"'
grants_guest() { # name program words…
    local name=$1 program=$2
    shift 2
    # Debian's kernel by its package, which has the modules.
    printf '{ "name": "%s", "memory": "%s", "engine": "%s", "net": "lan0", "xen": true, "rng": false,\n' \
        "$name" "$memory" "$engine"
    printf '  "files": [%s, "%s/Benchmarks/guest/%s"], "command": ["%s"' "$grants_files" "$PWD" "$program" "$program"
    printf ', "%s"' "$@"
    echo '] }'
}
{
    echo '{ "guests": ['
    grants_guest lender grants-lender "$grants_runs" 20000 1000M
    echo ,
    grants_guest borrower grants-borrower "$grants_runs" 20000 1000M "$grants_seconds" 10.0.3.1
    echo '] }'
} >"$out/grants-house.json"
say "two guests that share pages, $grants_runs rounds"
timeout $((60 + grants_runs * (30 + 4 * grants_seconds))) "$roost" up "$out/grants-house.json" \
    2>"$out/grants.errors" | tr -d '\r' | tee "$out/grants.output" |
    sed -n 's/^borrower *| \(result .*\)/\1/p' >"$out/grants-linux.1" ||
    die "the guests that share pages do not end well: $(cat "$out/grants.output" "$out/grants.errors" | tail -n 3 | tr '\n' ' ')"
grep -q '^borrower *| workload end' "$out/grants.output" || die "the borrower: $(tail -n 2 "$out/grants.output" | tr '\n' ' ')"

# MARK: Two guests in Swift

pipe_guest() { # name
    printf '{ "name": "%s", "kernel": "%s/.build/guests/pipe.elf", "memory": "16M", "engine": "%s", "xen": true, ' \
        "$1" "$PWD" "$engine"
    echo '"append": "bytes=4G" }'
}
{
    echo '{ "guests": ['
    pipe_guest lender
    echo ,
    pipe_guest borrower
    echo '] }'
} >"$out/pipe-house.json"
for run in $(seq "$grants_runs"); do
    say "two guests in Swift, run $run of $grants_runs"
    timeout 60 "$roost" up "$out/pipe-house.json" 2>"$out/pipe.errors" | tr -d '\r' |
        sed -n 's/^lender *| pipe .* MBps=\([0-9]*\) memcpyMBps=\([0-9]*\).*/result pipe-MBps \1\nresult memcpy-MBps \2/p' \
            >"$out/grants-swift.$run" || die "the guests in Swift do not end well: $(tail -1 "$out/pipe.errors")"
done
load_after=$(cut -d' ' -f1 /proc/loadavg)

# MARK: The report

report_grants() {
    local one many bell trip ring tcp calm storm pipe copy
    one=$(figure grants-linux map-1) many=$(figure grants-linux map-256)
    bell=$(figure grants-linux event-trip) trip=$(figure grants-linux tcp-trip)
    ring=$(figure grants-linux ring-mib) tcp=$(figure grants-linux tcp-mib)
    calm=$(figure grants-linux calm-work) storm=$(figure grants-linux storm-work)
    pipe=$(figure grants-swift pipe-MBps) copy=$(figure grants-swift memcpy-MBps)
    report_conditions "$grants_runs" none | sed -n 1,3p
    echo
    echo '| pages and bells that two guests share | promised | measured | |'
    echo '|---|--:|--:|---|'
    echo "| map and unmap one page, by gntdev | ≤ 20 µs | $(pretty "$one") | $(verdict "$one" 20000 ≤) |"
    echo "| … of 256 in one call, each | ≤ 8 µs | $(pretty "$many") | $(verdict "$many" 8000 ≤) |"
    echo "| a bell there and back, both asleep in poll | – | $(pretty "$bell") | |"
    echo "| … of 1 byte by TCP over the switch and back: $(pretty "$trip") | ≤ 0.5 | $(ratio "$bell" "$trip") | $(verdict "$(calculate 'a / b' "$bell" "$trip")" 0.5 ≤) |"
    echo "| a MiB through a ring of 256 pages | – | $(pretty "$ring") | |"
    echo "| … how many times as fast as TCP over the switch: $(pretty "$tcp") | ≥ 3 | $(ratio "$tcp" "$ring") | $(verdict "$(calculate 'a / b' "$tcp" "$ring")" 3 ≥) |"
    echo "| work under a storm of bells: speed, of that without | ≥ 80 % | $(present "$(calculate '100 * a / b' "$calm" "$storm")" '%.0f %%') | $(verdict "$(calculate '100 * a / b' "$calm" "$storm")" 80 ≥) |"
    echo "| two guests in Swift: through a ring of 256 pages | – | $(present "$pipe" '%.0f MB/s') | |"
    echo "| … of memcpy's bandwidth in one of them: $(present "$copy" '%.0f MB/s') | ≥ 50 % | $(present "$(calculate '100 * a / b' "$pipe" "$copy")" '%.0f %%') | $(verdict "$(calculate '100 * a / b' "$pipe" "$copy")" 50 ≥) |"
}
report_grants >"$out/grants.md"
