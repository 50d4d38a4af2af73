# How `make bench` shows what it measured: Markdown, all of it made from the files
# that measure left in $out. Sourced by Benchmarks/run. "-" is a figure that is not there.

# MARK: Figures

median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; else print "-" }'; }
least() { printf '%s\n' "$@" | sed '/^-$/d' | sort -g | head -1 | grep . || echo -; }
# The files are WHO.1, WHO.2…; there may be none.
figure() { { cat "$out/$1".*[0-9] 2>/dev/null || true; } | awk -v name="$2" '$2 == name { print $3 }' | median; } # who row
tcg_figure() { least "$(figure max "$1")" "$(figure qemu64 "$1")"; }
device_figure() { figure "device-$1" "$2"; } # roost|max|qemu64 row
device_tcg_figure() { least "$(device_figure max "$1")" "$(device_figure qemu64 "$1")"; }
event() { cat "$out"/events.* | awk -v name="$1" '$2 == name { print $3 }' | median; }
# What the engine said at the end of a run: "translator: NAME VALUE".
counter() { # run name
    awk -v name="$2" '{ sub(/\r$/, "") } match($0, /translator: /) {
            split(substr($0, RSTART + RLENGTH), word, " ")
            if (word[1] == name) value = word[2]
        }
        END { print value == "" ? "-" : value }' "$out/$1.errors"
}
peak() { awk '$1 == "resident" && $2 > most { most = $2 } END { print most ? most : "-" }' "$out/$1"; } # run: KiB
calculate() { # expression over a, b and c, then their values
    awk -v a="$2" -v b="${3:-0}" -v c="${4:-0}" "BEGIN { if (a == \"-\" || b == \"-\" || c == \"-\") print \"-\"; else print $1 }"
}

# MARK: Figures for people

present() { awk -v v="$1" -v format="$2" 'BEGIN { if (v == "-") print "–"; else printf format "\n", v }'; } # figure format
pretty() { # nanoseconds
    awk -v v="$1" 'BEGIN {
        if (v == "-") { print "–"; exit }
        u = "ns"; if (v >= 1e9) { v /= 1e9; u = "s" } else if (v >= 1e6) { v /= 1e6; u = "ms" } else if (v >= 1000) { v /= 1000; u = "µs" }
        printf (v < 10 ? "%.2f %s\n" : v < 100 ? "%.1f %s\n" : "%.0f %s\n"), v, u }'
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a == "-" || b == "-" || b == 0) print "–"; else { r = a / b; printf (r < 10 ? "%.2f\n" : r < 100 ? "%.1f\n" : "%.0f\n"), r } }'; }
mebibytes() { present "$(calculate 'a / 1024' "$1")" '%.1f MiB'; } # KiB
verdict() { awk -v v="$1" -v goal="$2" -v more="$3" 'BEGIN { print v == "-" ? "–" : (more == "≥" ? v + 0 >= goal + 0 : v + 0 <= goal + 0) ? "met" : "short" }'; }

# MARK: Tables

report() {
    report_conditions "$runs" "$machine"
    if [ "$machine" != "${BENCH_MACHINE:-microvm}" ]; then echo "Its \`microvm\` hung or failed five times in a row."; fi
    echo; report_race
    echo; report_engine
    echo; report_rest
    echo; report_interpreter
}

report_conditions() { # runs machine
    echo "Measured by \`make bench\` on $(date -u +%Y-%m-%d): $(grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'), $(nproc) cores,"
    echo "Linux $(uname -r), engine \`$engine\`, kernel \`$(basename "$kernel")\`, guests of $memory, commit $(git rev-parse --short HEAD 2>/dev/null || echo none)."
    echo "Medians of $1 runs, turn by turn; the machine's load was $load_before before and $load_after after."
    [ $have_qemu = yes ] || { echo 'There is no QEMU here to compare with.'; return; }
    echo "$(qemu-system-x86_64 --version | head -1), \`-M $2 -accel tcg\`, the better of \`-cpu max\` and \`-cpu qemu64\` row by row;"
    echo "$hung_boots of its $boots boots hung or failed, and were repeated."
}

report_race() {
    local name text unit promised native roost_time tcg worst slowest faster slower
    echo '| work, same static binaries | time for one | native | QEMU TCG | Roost | Roost ÷ native | TCG ÷ Roost | promised | |'
    echo '|---|---|--:|--:|--:|--:|--:|--:|---|'
    : >"$out/ratios"
    while IFS='|' read -r name text unit promised; do
        native=$(figure native "$name") roost_time=$(figure roost "$name") tcg=$(tcg_figure "$name")
        # A process begins, on a machine that has booted.
        [ "$name" != boot ] || native=-
        echo "$name $native $roost_time $tcg" >>"$out/ratios"
        echo "| $text | $unit | $(pretty "$native") | $(pretty "$tcg") | $(pretty "$roost_time")" \
            "| $(ratio "$roost_time" "$native") | $(ratio "$tcg" "$roost_time") | ≥ $promised" \
            "| $(verdict "$(calculate 'a / b' "$tcg" "$roost_time")" "$promised" ≥) |"
    done < <(grep -v '^#' Benchmarks/rows)
    read -r worst slowest faster slower < <(awk '
        $2 != "-" { slower += log($3 / $2); n++ }
        $4 != "-" { r = $4 / $3; faster += log(r); if (!m++ || r < worst) { worst = r; slowest = $1 } }
        END { print m ? worst : "-", m ? slowest : "-", m ? exp(faster / m) : "-", n ? exp(slower / n) : "-" }' "$out/ratios")
    echo
    echo '| all rows together | promised | measured | |'
    echo '|---|--:|--:|---|'
    echo "| nothing slower than TCG: the least of TCG ÷ Roost, $(row_text "$slowest") | ≥ 1 | $(ratio "$worst" 1) | $(verdict "$worst" 1 ≥) |"
    echo "| geometric mean of TCG ÷ Roost | ≥ 4 | $(ratio "$faster" 1) | $(verdict "$faster" 4 ≥) |"
    echo "| geometric mean of Roost ÷ native | ≤ 3 | $(ratio "$slower" 1) | $(verdict "$slower" 3 ≤) |"
}
row_text() { awk -F'|' -v name="$1" '$1 == name { print $2; found = 1 } END { if (!found) print "–" }' Benchmarks/rows; }

report_engine() {
    echo "| engine \`$engine\` at the end of | promised | the table's work | | code that is always new | |"
    echo '|---|--:|--:|---|--:|---|'
    engine_line 'guest instructions translated' – "$(for_both shown_counter translated-instructions %d)"
    engine_line 'guest code translated' – "$(for_both shown_mebibytes translated-bytes)"
    engine_line 'host code made' – "$(for_both shown_mebibytes code-bytes)"
    engine_line 'translation of a guest instruction' '≤ 300 ns' "$(for_both shown_cost)"
    engine_line "most memory resident beyond the guest's RAM" '≤ 64 MiB + 1.5 × guest code' "$(for_both shown_peak)"
    engine_line 'the code cache began again' – "$(for_both shown_counter flushes '%d times')"
    engine_line 'longest stall when it did' '≤ 5 ms' "$(for_both shown_stall)"
}
engine_line() { echo "| $1 | $2 | $3 |"; }
# Two cells each: a figure, and what is to be said of it.
for_both() { echo "$("$1" engine-usual "${@:2}") | $("$1" engine-new "${@:2}")"; }
shown_counter() { echo "$(present "$(counter "$1" "$2")" "$3") | "; } # run name format
shown_mebibytes() { echo "$(mebibytes "$(calculate 'a / 1024' "$(counter "$1" "$2")")") | "; } # run name
shown_cost() {
    local cost
    cost=$(calculate 'b ? a / b : "-"' "$(counter "$1" translation-nanoseconds)" "$(counter "$1" translated-instructions)")
    echo "$(pretty "$cost") | $(verdict "$cost" 300 ≤)"
}
shown_peak() {
    local most bound
    most=$(peak "$1")
    # An engine that says nothing translates nothing.
    bound=$(calculate '64 * 1024 + 1.5 * a / 1024' "$(counter "$1" translated-bytes | sed 's/^-$/0/')")
    echo "$(mebibytes "$most") of $(mebibytes "$bound") | $(verdict "$most" "$bound" ≤)"
}
shown_stall() {
    local stall
    stall=$(counter "$1" longest-stall-nanoseconds)
    echo "$(pretty "$stall") | $(verdict "$stall" 5e6 ≤)"
}

report_rest() {
    local roost_kib roost_mille interpreter_kib interpreter_mille qemu_kib qemu_mille
    read -r roost_kib roost_mille <<<"$roost_rest"
    read -r interpreter_kib interpreter_mille <<<"$interpreter_rest"
    read -r qemu_kib qemu_mille <<<"$qemu_rest"
    echo "| at rest | \`$engine\` | \`interpreter\` | promised of it | | QEMU TCG |"
    echo '|---|--:|--:|--:|---|--:|'
    echo "| resident memory beyond the guest's RAM | $(mebibytes "$roost_kib") | $(mebibytes "$interpreter_kib") | ≤ 32 MiB | $(verdict "$interpreter_kib" 32768 ≤) | $(mebibytes "$qemu_kib") |"
    echo "| processor time, of one core | $(per_cent "$roost_mille") | $(per_cent "$interpreter_mille") | < 2 % | $(verdict "$interpreter_mille" 19.99 ≤) | $(per_cent "$qemu_mille") |"
    echo
    echo 'Roost rests in the shell of `roost run`; QEMU in the workload, waiting.'
}
per_cent() { present "$(calculate 'a / 10' "$1")" '%.1f %%'; }

report_interpreter() {
    local mips boot name text unit roost_time
    mips=$(cat "$out"/events.* | awk '$1 == "mips" { print $2 }' | median)
    boot=$(figure interpreter boot)
    echo '| engine `interpreter` | promised | measured | |'
    echo '|---|--:|--:|---|'
    echo "| instructions per second, integer mix | ≥ 60 million | $(present "$mips" '%.1f million') | $(verdict "$mips" 60 ≥) |"
    echo "| process start to the first line of init | ≤ 30 s | $(pretty "$boot") | $(verdict "$boot" 30e9 ≤) |"
    echo
    echo '| engine `interpreter` | time for one | Interpreter | Interpreter ÷ native | TCG ÷ Interpreter |'
    echo '|---|---|--:|--:|--:|'
    while IFS='|' read -r name text unit _; do
        roost_time=$(figure interpreter "$name")
        case " $interpreter_rows " in *" $name "*)
            echo "| $text | $unit | $(pretty "$roost_time") | $(ratio "$roost_time" "$(figure native "$name")") | $(ratio "$(tcg_figure "$name")" "$roost_time") |" ;;
        esac
    done < <(grep -v '^#' Benchmarks/rows)
    echo
    echo '| event in the Interpreter | cost |'
    echo '|---|--:|'
    while IFS='|' read -r name text; do echo "| $text | $(pretty "$(event "$name")") |"; done <<'EVENTS'
decode|a new instruction, decoded and lowered
tlb-miss|TLB miss, walk of four levels
exception|exception (#UD) and IRETQ
syscall|SYSCALL and SYSRET
port-exit|exit for a port, and back
mmio-exit|exit for MMIO, and back
call-return|CALL, RET and a jump
push-pop|PUSH and POP
vector-register|ADDSD between registers
vector-memory|ADDPS from memory
EVENTS
}

report_devices() {
    local name text interrupts
    report_conditions "$device_runs" microvm
    echo 'Both have virtio-mmio, plain files as disks, and libslirp or a TAP of their own as network.'
    [ -z "$without" ] || echo "Left out: $without"
    echo
    echo '| work, through devices | time for one | QEMU TCG | Roost | TCG ÷ Roost | promised | |'
    echo '|---|---|--:|--:|--:|--:|---|'
    device_lines Benchmarks/device-rows
    echo
    echo '| interrupts for one request | QEMU TCG | Roost | promised | |'
    echo '|---|--:|--:|--:|---|'
    while IFS='|' read -r name text _; do
        case $name in *-32) ;; *) continue ;; esac
        interrupts=$(device_figure roost "irq-$name")
        echo "| $text | $(present "$(device_tcg_figure "irq-$name")" %.2f) | $(present "$interrupts" %.2f)" \
            "| ≤ 0.2 | $(verdict "$interrupts" 0.2 ≤) |"
    done < <(grep -v '^#' Benchmarks/device-rows)
}
report_lan() {
    report_conditions "$lan_runs" microvm
    echo 'Roost has both guests in one process, with a switch between them; QEMU has two processes, with `-netdev socket`.'
    echo
    echo '| work, from guest to guest | time for one | QEMU TCG | Roost | TCG ÷ Roost | promised | |'
    echo '|---|---|--:|--:|--:|--:|---|'
    device_lines Benchmarks/lan-rows
}
device_lines() { # rows
    local name text unit promised roost_time tcg
    while IFS='|' read -r name text unit promised; do
        roost_time=$(device_figure roost "$name") tcg=$(device_tcg_figure "$name")
        echo "| $text | $unit | $(pretty "$tcg") | $(pretty "$roost_time") | $(ratio "$tcg" "$roost_time") | ≥ $promised" \
            "| $(verdict "$(calculate 'a / b' "$tcg" "$roost_time")" "$promised" ≥) |"
    done < <(grep -v '^#' "$1")
}

# MARK: Where it goes

# At a terminal, columns under each other.
show() { # report
    LC_ALL=C.UTF-8 awk '
        /^\|[-:|]*$/ { next }
        /^\|/ { sub(/^\| /, ""); sub(/ \|$/, ""); print | "column -t -s \"|\""; next }
        { close("column -t -s \"|\""); print }' "$1"
}

# Between the two marks of the part.
write_to_specification() { # part report
    awk -v part="$1" -v report="$2" '
        $0 == "<!-- measured: " part " -->" { print; print ""; while ((getline line < report) > 0) print line; print ""; skip = 1; next }
        $0 == "<!-- end of measured: " part " -->" { skip = 0 }
        !skip' SPECIFICATION.md >"$out/SPECIFICATION.md"
    cp "$out/SPECIFICATION.md" SPECIFICATION.md
}
