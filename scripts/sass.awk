# Reads machine code as `nvdisasm -c FILE.cubin` prints it and counts the instructions of each kernel's loops, by kind.
#   awk -f scripts/sass.awk FILE.sass          one line per loop, tab-separated: see the header that it prints
# A loop is what lies between the target of a branch back and that branch. Of the paths through its body (forward branches taken or
# not) it counts the one that passes the most tensor-core instructions and asynchronous copies (else: global loads and stores), and among
# those the shortest: attention's loop without bias and away from the diagonal. A loop around another counts its own instructions only
# (column `in` is `around`). Kernels without a loop are counted from entry to exit (`all`).
# Not a disassembler, and not a simulator: how long instructions take is the model's business (scripts/sass_model.awk).
BEGIN {
    FS = "\t"
    kinds = split("mma ldsm lds sts async ldg stg mufu float pack convert int move control other", kind, " ")
    printf "kernel\tloop\tin\ttotal"
    for (k = 1; k <= kinds; k++) printf "\t%s", kind[k]
    print ""
}

# The kind of an instruction from its name; `text` for moves written as multiply-adds.
function kind_of(op, text) {
    if (op ~ /^HMMA/) return "mma"
    if (op ~ /^LDSM/) return "ldsm"
    if (op ~ /^LDGSTS|^LDGDEPBAR|^DEPBAR|^CP/) return "async"
    if (op ~ /^LDG|^LD\.|^LD$/) return "ldg"
    if (op ~ /^STG|^ST\.|^ST$/) return "stg"
    if (op ~ /^LDS/) return "lds"
    if (op ~ /^STS/) return "sts"
    if (op ~ /^MUFU/) return "mufu"
    if (op ~ /^F2FP/) return "pack"
    if (op ~ /^(F2I|I2F|F2F|I2I)/) return "convert"
    if (op ~ /^IMAD\.MOV|^U?MOV|^CS2R|^S2U?R|^R2UR|^LDC|^ULDC/) return "move"
    if (op ~ /^(FFMA|FMUL|FADD|FMNMX|FSETP|FSEL|FSET|DADD|DMUL|DFMA|HADD2|HFMA2|HMUL2|FCHK|SHFL)/) return "float"
    if (op ~ /^(BRA|BSSY|BSYNC|BREAK|EXIT|BAR|WARPSYNC|NOP|CALL|RET|YIELD|ERRBAR|MEMBAR|NANOSLEEP)/) return "control"
    if (op ~ /^(ISETP|PLOP3|UISETP|UPLOP3|VOTE|VOTEU)/) return "control"
    if (op ~ /^U?(IMAD|IADD|VIADD|LOP3|LEA|SHF|PRMT|SEL|IABS|IMNMX|VIMNMX|P2R|R2P|BREV|POPC|SGXT|BMSK|USEL|IDP|ISCADD)/) return "int"
    return "other"
}

/^\.text\.[^ ]*:$/ {
    finish()
    name = substr($0, 7, length($0) - 7)
    next
}
/^\.L_x_[0-9]+:/ { pending[++waiting] = substr($0, 1, length($0) - 1); next }
match($0, /\/\*[0-9a-f]+\*\//) {
    if (name == "") next
    rest = substr($0, RSTART + RLENGTH)
    sub(/^[ \t]+/, "", rest)
    sub(/[ \t]*;.*/, "", rest)
    predicated[n + 1] = 0
    if (rest ~ /^@/) {
        predicated[n + 1] = 1
        sub(/^@[^ \t]+[ \t]+/, "", rest)
    }
    n++
    text[n] = rest
    op[n] = rest
    sub(/[ \t].*/, "", op[n])
    while (waiting) at[pending[waiting--]] = n
    target[n] = ""
    if (op[n] ~ /^(BRA|CALL|BSSY|BRX)/ && match(rest, /\.L_x_[0-9]+/)) target[n] = substr(rest, RSTART, RLENGTH)
}
END { finish() }

# Where a branch goes, 0 for other instructions.
function goes_to(i) { return op[i] ~ /^BRA/ && target[i] in at ? at[target[i]] : 0 }

# Whether nothing after this instruction is reached by falling through.
function ends(i) {
    if (predicated[i] || op[i] ~ /^BRA\.DIV/) return 0
    if (op[i] ~ /^BRA/) return text[i] !~ /^[^,]*P[0-9T]+,/
    return op[i] ~ /^(EXIT|RET)/
}

# Whether the path is to pass this instruction.
function wanted(i, mma) {
    if (mma) return op[i] ~ /^HMMA|^LDGSTS/
    return op[i] ~ /^(LDG|STG|LD\.|ST\.|MUFU)/
}

# The path from first to last, into on[]; only `from` .. `last` are visited. last 0: to an EXIT.
function path(first, last, mma,    i, to, end, best, reached, previous, score, length_) {
    end = last ? last : n
    for (i = first; i <= end + 1; i++) reached[i] = 0
    reached[first] = 1
    score[first] = 0
    length_[first] = 0
    previous[first] = 0
    best = 0
    for (i = first; i <= end; i++) {
        if (!reached[i]) continue
        s = score[i] + wanted(i, mma)
        l = length_[i] + 1
        if (i == last || (!last && op[i] == "EXIT")) {
            if (!best || s > best_score || (s == best_score && l < best_length)) {
                best = i
                best_score = s
                best_length = l
            }
            if (last || !predicated[i]) continue
        }
        to = goes_to(i)
        if (to > i && to <= end) relax(i, to, s, l, reached, previous, score, length_)
        if (!ends(i)) relax(i, i + 1, s, l, reached, previous, score, length_)
    }
    for (i in on) delete on[i]
    for (i = best; i; i = previous[i]) on[i] = 1
    return best
}
function relax(i, to, s, l, reached, previous, score, length_) {
    if (reached[to] && (score[to] > s || (score[to] == s && length_[to] <= l))) return
    reached[to] = 1
    score[to] = s
    length_[to] = l
    previous[to] = i
}

# One line: the instructions that are on the path and not inside an inner loop.
function count(loop, where, inner,    i, k, c, total) {
    for (k = 1; k <= kinds; k++) c[kind[k]] = 0
    total = 0
    for (i in on) if (!inner || !(i + 0 in covered)) {
        c[kind_of(op[i], text[i])]++
        total++
    }
    printf "%s\t%s\t%s\t%d", name, loop, where, total
    for (k = 1; k <= kinds; k++) printf "\t%d", c[kind[k]]
    print ""
}

function finish(    i, j, loops, inside, mma) {
    if (name != "" && n) {
        # Loops: one for each header, the farthest branch back to it.
        loops = 0
        for (i = 1; i <= n; i++) {
            j = goes_to(i)
            if (!j || j >= i) {
                if (j != i) continue
                if (j == i) continue                          # the trap behind a kernel's end
            }
            if (!(j in back)) heads[++loops] = j
            back[j] = i
        }
        for (i = 2; i <= loops; i++)
            for (j = i; j > 1 && heads[j - 1] > heads[j]; j--) {
                t = heads[j]
                heads[j] = heads[j - 1]
                heads[j - 1] = t
            }
        for (i = 1; i <= loops; i++) {
            for (j in covered) delete covered[j]
            inside = 0
            for (j = 1; j <= loops; j++) if (j != i && heads[j] >= heads[i] && back[heads[j]] <= back[heads[i]]) {
                inside = 1
                for (k = heads[j]; k <= back[heads[j]]; k++) covered[k] = 1
            }
            mma = 0
            for (j = heads[i]; j <= back[heads[i]]; j++) if (op[j] ~ /^HMMA/) mma = 1
            if (path(heads[i], back[heads[i]], mma)) count(i, inside ? "around" : "inner", inside)
        }
        if (!loops && path(1, 0, 0)) count(0, "all", 0)
    }
    for (i in back) delete back[i]
    for (i in at) delete at[i]
    name = ""
    n = 0
    waiting = 0
}
