# A prediction, not a measurement: the time of a 124M training step (GPT-2 small, B = 64, T = 1024, bf16, RoPE) on one H200, from the
# instructions in a table that scripts/sass_check.sh writes.
#   awk -f scripts/sass_model.awk TABLE.tsv
# The machine: 132 SMs of 4 schedulers at 1.755 GHz, 4.3 TB/s reached by copies. What an instruction of a warp costs its
# scheduler, in cycles:
#   mma.sync m16n8k16  4    the nominal peak: 512 multiply-adds a cycle for each scheduler
#   ldmatrix.x4       16    512 bytes, of 128 a cycle for the whole SM
#   exp2, reciprocal   8    4 lanes a cycle
#   every other        1
# Nothing overlaps in a kernel's instructions: pessimistic where warps hide each other's waits, optimistic about waiting itself. A kernel's
# time is that or its bytes at 4.3 TB/s, whichever is longer. Matrix products: 79.7 ms, at 610 TFLOP/s (cuBLAS's on H100s
# elsewhere), assumed.
# The counts of commit 341edd2 give 126 ms here (with that commit's layernorm backward at 4.1 ms and token sort at 1.3, from a static
# review), of which attention 27.6 and cross-entropy 6.6. That review, which reckoned differently, came to 126 ms too. Both guess.
BEGIN {
    FS = "\t"
    SCHEDULERS = 132 * 4
    HZ = 1.755e9
    BYTES_PER_S = 4.3e12
    L = 12; B = 64; T = 1024; C = 768; NH = 12; VP = 50304; ROWS = B * T; PARAMETERS = 124.5e6
}
NR == 1 {
    for (i = 1; i <= NF; i++) column[$i] = i
    next
}
/^#/ { next }
{
    total = $column["total"]
    cycles[$1] = total + 3 * $column["mma"] + 15 * $column["ldsm"] + 7 * $column["mufu"]
    units[$1] = $column["units"]
    seen[$1] = 1
}
# Milliseconds of `warps` passes of a loop; of `elements` taken 32 lanes at a time, by one or more loops' cycles an element
function passes_ms(warps, c) { return warps * c / SCHEDULERS / HZ * 1e3 }
function elements_ms(elements, c) { return passes_ms(elements / 32, c) }
function an_element(name) { return units[name] ? cycles[name] / units[name] : 0 }
function bytes_ms(bytes) { return bytes / BYTES_PER_S * 1e3 }
function longer(a, b) { return a > b ? a : b }
function line(what, ms, how) {
    printf "| %s | %.1f | %s |\n", what, ms, how
    sum += ms
}
END {
    heads = B * NH * L
    # Tiles of 128 queries see 2, 4, ... 16 tiles of 64 keys, four warps each.
    forward_tiles = heads * 4 * 72
    # Backward, steps of 32 columns for 32 rows a warp: blocks of 128 rows see 32, 28, ... 4 of them. A loop around has two steps.
    steps = heads * 4 * 144
    kind = variant == "qv" ? "qv" : "qkv"
    forward = passes_ms(forward_tiles, cycles["attention forward " kind])
    kv = passes_ms(steps, cycles["attention backward kv " kind] + cycles["attention backward kv, around " kind] / 2)
    q = passes_ms(steps, cycles["attention backward q " kind] + cycles["attention backward q, around " kind] / 2)
    # Outside the loops: dQ and dK (QV: O too) rotated back before they are stored, about 190 instructions for 32 rows of a head (the
    # kernels' whole counts with and without it: 191 and 184), and the kernel of D = rowsum(dO * O).
    rotation = passes_ms(2 * heads * T / 32, 190)
    if (kind == "qv") forward += rotation / 2
    delta = bytes_ms(2 * 2 * ROWS * C * L) + rotation
    flops = 4 * 64 * T * T / 2 * heads
    printf "Predicted, not measured (scripts/sass_model.awk says how): 124M, B %d, T %d, %s, one H200\n\n", B, T, kind
    print "| part of a step | ms | bound by |\n|---|---:|---|"
    line("matrix products", 79.7, "assumed: 610 TFLOP/s")
    line("attention forward", forward, sprintf("instructions; %.0f TFLOP/s", flops / forward / 1e9))
    line("attention backward", kv + q + delta, sprintf("instructions; %.0f TFLOP/s", 2.5 * flops / (kv + q + delta) / 1e9))
    logits = ROWS * VP
    issue = elements_ms(logits, an_element("cross-entropy, first pass") + an_element("cross-entropy, second pass"))
    line("cross-entropy", longer(issue, bytes_ms(4 * logits)), issue > bytes_ms(4 * logits) ? "instructions" : "memory")
    n = ROWS * C
    issue = elements_ms(n, an_element("layernorm backward")) * (2 * L + 1)
    memory = bytes_ms(8 * n) * (2 * L + 1)
    line("layernorm backward", longer(issue, memory), issue > memory ? "instructions" : "memory")
    issue = elements_ms(n, an_element("layernorm forward")) * (2 * L + 1)
    memory = bytes_ms(8 * n) * 2 * L + bytes_ms(4 * n)
    line("residual and layernorm forward", longer(issue, memory), issue > memory ? "instructions" : "memory")
    # Q and K (or V) forward, 8 bytes for two elements read and written; QV's `vo` form also dO in the backward.
    line("rope", bytes_ms((kind == "qv" ? 12 : 8) * n) * L + bytes_ms(ROWS * 64 * 4) * L * (kind == "qv" ? 2 : 1), "memory")
    line("embedding", bytes_ms(6 * n) + bytes_ms(8 * PARAMETERS / 3), "memory")
    issue = elements_ms(PARAMETERS, an_element("AdamW"))
    line("AdamW and norm", longer(issue, bytes_ms(30 * PARAMETERS)) + bytes_ms(4 * PARAMETERS), "memory")
    line("launches", 0.9, "assumed")
    printf "| **sum** | **%.1f** | %.0f tokens/s |\n", sum, ROWS / sum * 1e3
}
