# The part of `make bench` that is about Guests on lguest's bus: hypercalls, DMA from
# one Guest to another, and how soon one has something to say. Sourced by Benchmarks/run.
#
# There is nobody to compare with but this machine's own memcpy(3). The figures are of
# one process each; as often as there are runs, and the median counts.

lguest_runs=${BENCH_RUNS:-5}
load_before=$(cut -d' ' -f1 /proc/loadavg)
make -s guests >&2
for ((run = 1; run <= lguest_runs; run++)); do
    say "lguest, run $run of $lguest_runs"
    "$out/../release/RoostBench" lguest .build/guests/hello.elf >"$out/lguest.$run"
    # From the command to the first byte, the shell's own fork included.
    begin=${EPOCHREALTIME/[.,]/}
    read -r _ < <("$roost" run --engine "$engine" --kernel .build/guests/hello.elf </dev/null)
    echo "lguest command $(((${EPOCHREALTIME/[.,]/} - begin) * 1000))" >>"$out/lguest.$run"
done

load_after=$(cut -d' ' -f1 /proc/loadavg)

report_lguest() {
    local copy send
    report_conditions "$lguest_runs" none | sed -n 1,3p
    echo
    echo '| Guests on lguest'\''s bus | promised | measured | |'
    echo '|---|--:|--:|---|'
    lguest_line hypercall 'hypercall that does nothing' 150
    lguest_line notify 'NOTIFY, to the Launcher and back' 2000
    lguest_line dma-64 'SEND_DMA of 64 bytes, one way' 3000
    lguest_line hello '`hello.elf`: from its file to its first line' 10e6
    copy=$(figure lguest memcpy-64k) send=$(figure lguest dma-64k)
    echo "| SEND_DMA of 64 KiB between two Guests | – | $(pretty "$send") | |"
    echo "| … of memcpy(3)'s bandwidth, 64 KiB in the cache: $(pretty "$copy") | ≥ 60 % | $(present "$(calculate '100 * a / b' "$copy" "$send")" '%.0f %%') | $(verdict "$(calculate '100 * a / b' "$copy" "$send")" 60 ≥) |"
    echo "| \`roost run hello.elf\`: from the command to its first line | – | $(pretty "$(figure lguest command)") | |"
}
lguest_line() { # name text promised, in nanoseconds
    local measured
    measured=$(figure lguest "$1")
    echo "| $2 | ≤ $(pretty "$3" | sed 's/\.00//; s/\.0 / /') | $(pretty "$measured") | $(verdict "$measured" "$3" ≤) |"
}
report_lguest >"$out/lguest.md"
