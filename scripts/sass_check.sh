#!/usr/bin/env bash
# What nvcc makes of the inner loops of attention, cross-entropy, layernorm and AdamW, counted by kind of instruction and
# held against the table docs/gpu/sass.tsv, and what a small model predicts from it. Needs nvcc and nvdisasm, no GPU;
# 40 seconds of one core. `make sass-check` calls it.
#   scripts/sass_check.sh [build folder]       NVCC=path NVDISASM=path; also test/ops/test_sass.sh
#   RECORD=1      writes the table anew: for who changed a kernel, or the compiler
# Fails where a loop has other counts than the table says (with the compiler that wrote it), where registers spill, where QV has as many
# instructions or more shared-memory reads than QKV, and where the bars below are missed. The last line counts the checks.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
OUT=${1:-build}/sass TABLE=${TABLE:-docs/gpu/sass.tsv} ARCH=90
NVCC=${NVCC:-$(command -v /usr/local/cuda/bin/nvcc || command -v nvcc)}
skip() { printf 'test_sass: skipped: %s\n' "$*"; exit 0; }
[[ -n $NVCC ]] || skip "no nvcc"
# nvdisasm: beside nvcc, in PATH, or in a Python package (pip install nvidia-cuda-nvdisasm; PyTorch's Triton brings one).
find_nvdisasm() {
    command -v "${NVCC%/*}/nvdisasm" || command -v nvdisasm || {
        local site
        site=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2>/dev/null) &&
            ls "$site"/nvidia/*/bin/nvdisasm "$site"/triton/backends/nvidia/bin/nvdisasm 2>/dev/null | head -n 1
    }
}
NVDISASM=${NVDISASM:-$(find_nvdisasm)}
[[ -n $NVDISASM ]] || skip "no nvdisasm (part of the CUDA toolkit; or pip install nvidia-cuda-nvdisasm)"
mkdir -p "$OUT" || exit 1
version=$("$NVCC" --version | sed -n 's/.*release \([0-9.]*\), \(V[0-9.]*\).*/\2/p')

# The Makefile's flags, for one GPU.
compile() {
    local name=${1##*/}
    name=$OUT/${name%.cu}
    "$NVCC" -std=c++20 -O3 -ftz=true -Xptxas -v -arch=sm_$ARCH -I. -DPRECISION_bf16 -cubin "$1" -o "$name.cubin" >"$name.log" 2>&1 &&
        "$NVDISASM" -c "$name.cubin" >"$name.sass" && awk -f scripts/sass.awk "$name.sass" >"$name.loops" && return
    cat "$name.log"
    return 1
}
pids=()
for file in test/ops/sass_kernels.cu layers/crossentropy.cu layers/layernorm.cu layers/adamw.cu; do compile "$file" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || { echo "test_sass: 1 checks, 1 failed"; exit 1; }; done

# What is recorded: a name; the file; a kernel; which of its loops: the longest for which the conditions hold; what an instruction count is
# divided by: HMMA instructions, or elements: 8 for each 16-byte load or store of one array, 4 in AdamW.
rows='
attention forward qkv|sass_kernels|sdpa_forward_kernelILi64ELi64ELb0E|mma>0|mma
attention forward qv|sass_kernels|sdpa_forward_kernelILi64ELi64ELb1E|mma>0|mma
attention backward kv qkv|sass_kernels|sdpa_backward_kv_kernelILi64ELi64ELb0E|mma>0|mma
attention backward kv qv|sass_kernels|sdpa_backward_kv_kernelILi64ELi64ELb1E|mma>0|mma
attention backward kv, around qkv|sass_kernels|sdpa_backward_kv_kernelILi64ELi64ELb0E|async>0|1
attention backward kv, around qv|sass_kernels|sdpa_backward_kv_kernelILi64ELi64ELb1E|async>0|1
attention backward q qkv|sass_kernels|sdpa_backward_q_kernelILi64ELi64ELb0E|mma>0|mma
attention backward q qv|sass_kernels|sdpa_backward_q_kernelILi64ELi64ELb1E|mma>0|mma
attention backward q, around qkv|sass_kernels|sdpa_backward_q_kernelILi64ELi64ELb0E|async>0|1
attention backward q, around qv|sass_kernels|sdpa_backward_q_kernelILi64ELi64ELb1E|async>0|1
cross-entropy, first pass|crossentropy|crossentropy_kernelILi8E|mufu>0 ldg>0 stg==0|ldg*8
cross-entropy, second pass|crossentropy|crossentropy_kernelILi8E|mufu>0 ldg>0 stg>0|ldg*8
layernorm backward|layernorm|layernorm_backward_rows_kernelILi8ELi3E|ldg>0 stg>0|stg*8
layernorm forward|layernorm|layernorm_forward_kernelILi8E|ldg>0 sts>0|sts*8
AdamW|adamw|adamw_kernelILi4E|ldg>0 stg>0|4
'
# Joins loops, ptxas's report and the shared memory that kernels ask for into the table. 228 KiB, 64K registers and 64
# warps an SM; 1 KiB a block is the system's. Threads a block: 128 in attention, 256 elsewhere, 512 in cross-entropy.
make_table() {
    local name file kernel where unit
    printf 'loop\tunits\ttotal\tmma\tldsm\tlds\tsts\tasync\tldg\tstg\tmufu\tfloat\tpack\tconvert\tint\tmove\tcontrol\tother\t'
    printf 'per unit\tregisters\tspilled bytes\tshared bytes\tblocks an SM\n'
    while IFS='|' read -r name file kernel where unit; do
        [[ -n $name ]] || continue
        awk -F '\t' -v name="$name" -v kernel="$kernel" -v where="$where" -v unit="$unit" -v log_file="$OUT/$file.log" '
            function holds(conditions, part, n, i, t) {
                n = split(conditions, part, " ")
                for (i = 1; i <= n; i++) {
                    if (part[i] ~ />0$/) { t = part[i]; sub(/>0$/, "", t); if (!($column[t] > 0)) return 0 }
                    if (part[i] ~ /==0$/) { t = part[i]; sub(/==0$/, "", t); if ($column[t] != 0) return 0 }
                }
                return 1
            }
            BEGIN {
                while ((getline line < log_file) > 0) {
                    if (line ~ /Compiling entry function/) { split(line, q, "\047"); entry = q[2] }
                    if (line ~ /bytes spill stores/) {
                        match(line, /[0-9]+ bytes spill stores/)
                        s = substr(line, RSTART) + 0
                        match(line, /[0-9]+ bytes spill loads/)
                        s += substr(line, RSTART) + 0
                    }
                    if (line ~ /Used [0-9]+ registers/) {
                        if (index(entry, kernel)) {
                            spilled = s
                            match(line, /Used [0-9]+/)
                            registers = substr(line, RSTART + 5, RLENGTH - 5)
                            if (match(line, /[0-9]+ bytes smem/)) shared = substr(line, RSTART) + 0
                        }
                    }
                    if (line ~ /smem_of_/) {
                        # smem_of_forwardILi64ELb0ELm49152EE belongs to sdpa_forward_kernelILi64ELi64ELb0E
                        t = entry
                        sub(/.*smem_of_/, "sdpa_", t)
                        size = t
                        sub(/.*ELm/, "", size)
                        sub(/ELm.*/, "E", t)
                        sub(/ILi64E/, "_kernelILi64ELi64E", t)
                        if (t == kernel) shared = size + 0
                    }
                }
            }
            NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
            index($1, kernel) && holds(where) && $column["total"] > best {
                best = $column["total"]
                text = ""
                for (i = 4; i <= NF; i++) text = text "\t" $i
                units = unit == "mma" ? $column["mma"] : unit ~ /^(ldg|stg|sts)/ ? $column[substr(unit, 1, 3)] * 8 : unit
            }
            END {
                if (!best) { printf "%s\tnot found\n", name; exit }
                threads = kernel ~ /^sdpa/ ? 128 : kernel ~ /^cross/ ? 512 : kernel ~ /layernorm_forward/ ? 128 : 256
                if (kernel ~ /layernorm_backward/) shared = 2 * 768 * 4
                if (kernel ~ /layernorm_forward/) shared = 4 * 768 * 2
                blocks = int(65536 / (int((registers + 7) / 8) * 8 * threads))
                if (blocks > int(2048 / threads)) blocks = int(2048 / threads)
                by_smem = int(228 * 1024 / (shared + 1024)); if (by_smem < blocks) blocks = by_smem
                printf "%s\t%d%s\t%.2f\t%d\t%d\t%d\t%d\n", name, units, text, best / units, registers, spilled, shared, blocks
            }' "$OUT/$file.loops"
    done <<<"$rows"
}
make_table >"$OUT/table.tsv"
if [[ -n ${RECORD:-} ]]; then
    { cat "$OUT/table.tsv"; printf '# sm_%s, nvcc %s; made by RECORD=1 scripts/sass_check.sh\n' "$ARCH" "$version"; } >"$TABLE"
fi

checks=0 failed=0
check() { checks=$((checks + 1)); (($1)) || { failed=$((failed + 1)); printf 'failed: %s\n' "$2"; }; }          # 1 or 0, what
cell() {
    awk -F '\t' -v row="$1" -v name="$2" '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i }
        $1 == row { print $c }' "${3:-$OUT/table.tsv}"
}
less() { awk -v a="$1" -v b="$2" 'BEGIN { print (a != "" && b != "" && a + 0 < b + 0) ? 1 : 0 }'; }
recorded=$(sed -n 's/^# sm_[0-9]*, nvcc \(V[0-9.]*\);.*/\1/p' "$TABLE" 2>/dev/null)
while IFS=$'\t' read -r name rest; do
    [[ $name != loop ]] || continue
    [[ $rest != "not found" ]]; check $((!$?)) "$name: no such loop in the machine code"
    [[ $(cell "$name" "spilled bytes") == 0 ]]; check $((!$?)) "$name: registers spill"
    [[ $recorded == "$version" ]] || continue
    was=$(grep -F "$name"$'\t' "$TABLE" | head -n 1)
    [[ $was == "$name"$'\t'$rest ]]
    check $((!$?)) "$name differs from $TABLE (RECORD=1 writes it anew)"$'\n'"  table  $was"$'\n'"  now    $name"$'\t'"$rest"
done <"$OUT/table.tsv"
[[ $recorded == "$version" ]] || printf 'not compared with %s: written by nvcc %s, this is %s\n' "$TABLE" "${recorded:-none}" "$version"
for loop in "attention forward" "attention backward kv" "attention backward q"; do
    check "$(less "$(cell "$loop qv" total)" "$(cell "$loop qkv" total)")" "$loop: QV has as many instructions as QKV"
done
for loop in "attention backward kv" "attention backward q"; do
    check "$(less "$(cell "$loop qv" ldsm)" "$(cell "$loop qkv" ldsm)")" "$loop: QV reads shared memory as often as QKV"
done
check "$(less "$(cell "attention forward qv" async)" "$(cell "attention forward qkv" async)")" \
    "attention forward: QV copies as much into shared memory as QKV"
# Bars, from the counts of commit 341edd2: 808 instructions a tile forward, 539 and 547 a step backward.
check "$(less "$(cell "attention forward qkv" total)" 712)" "attention forward: less than 12% fewer instructions than 808"
check "$(less "$(cell "attention backward kv qkv" total)" 443)" "attention backward, dK and dV: less than 18% fewer instructions than 539"
check "$(less "$(cell "attention backward q qkv" total)" 450)" "attention backward, dQ: less than 18% fewer instructions than 547"
per_element=$(awk -v a="$(cell "cross-entropy, first pass" "per unit")" \
    -v b="$(cell "cross-entropy, second pass" "per unit")" 'BEGIN { print a + b }')
check "$(less "$per_element" 14.005)" "cross-entropy: $per_element instructions an element, at most 14"

cut -f 1,2,3,4,5,11,12,15,16,19- "$OUT/table.tsv" |
    awk -F '\t' '{ printf "%-34s", $1; for (i = 2; i <= NF; i++) printf " %13s", $i; print "" }'
printf '\n'
awk -f scripts/sass_model.awk "$OUT/table.tsv" | tee "$OUT/model.md"
awk -f scripts/sass_model.awk -v variant=qv "$OUT/table.tsv" >>"$OUT/model.md"
step_ms=$(sed -n 's/^| \*\*sum\*\* | \*\*\([0-9.]*\)\*\*.*/\1/p' "$OUT/model.md" | head -n 1)
check "$(less "$step_ms" 115)" "the model predicts $step_ms ms a step, not under 115"
printf 'test_sass: %d checks, %d failed\n' "$checks" "$failed"
((failed == 0))
