#!/usr/bin/env bash
# What g++ made of the CPU's loops (x86): none of them gathers or scatters. The layers read and write rows in order, so a gather means that
# the compiler has misunderstood a loop; AdamW's, which gathered what a lambda had captured, took nine times as long (docs/LOG.md).
# And in bf16, GELU's loop multiplies whole vectors: with a temporary in it, it had been scalar.      test/ops/test_machine_code.sh [build]
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=${1:-build}
command -v objdump >/dev/null || { echo "test_machine_code: skipped: objdump is not installed"; exit 0; }
[[ $(uname -m) == x86_64 ]] || { echo "test_machine_code: skipped: not an x86-64 machine"; exit 0; }
. test/system/shell_common.sh
for precision in fp32 bf16; do
    objects=("$BUILD"/obj/cpu-$precision-*native/layers/adamw.o)
    [[ -e ${objects[0]} ]] || { report 1 "$precision: objects to look at" "$BUILD/obj has none: \`make test\` builds them"; continue; }
    for adamw in "${objects[@]}"; do
        folder=$(dirname "$adamw")
        for object in "$folder"/*.o; do
            found=$(objdump -dC --no-show-raw-insn "$object" | awk '/^[0-9a-f]+ </ { f = $0 } /gather|scatter/ { print f; exit }')
            [[ -z $found ]]
            report $? "$object: no gathers" "$found"
        done
    done
    wide=$(objdump -d --no-show-raw-insn "$folder/linear.o" | grep -cE 'v?divps ')
    ((wide > 0))
    report $? "$folder/linear.o: GELU divides vectors" ""
done
printf 'test_machine_code: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
