#!/usr/bin/env bash
# Ten claims about these variants, one verdict line each (tools/claims/claims.cpp), from runs that are kept.
# Called by `make claims`; trains what is missing, skips what is done, continues when repeated. Results: RUNS_DIR/claims.md
#   SEEDS=3   a claim needs three      ONLY="rope power alibi sinusoidal recall extrapolation"   RUNS_DIR BUILD TUNE NICE=15
# At the default size about 60 runs of one core-minute (an idle machine), and the small recall probes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUILD=${BUILD:-build} RUNS_DIR=${RUNS_DIR:-runs} SEEDS=${SEEDS:-3}
ONLY=${ONLY:-rope power alibi sinusoidal recall extrapolation}

say() { printf 'claims: %s\n' "$*" >&2; }
[[ -x $BUILD/claims ]] || { say "$BUILD/claims is missing: \`make claims\` builds it"; exit 1; }
wants() { [[ " $ONLY " == *" $1 "* ]]; }
compare() {      # NAME POS rows...
    local name=$1 pos=$2 status=0
    shift 2
    say "$name: $*"
    nice -n "${NICE:-0}" env NAME="$name" POS="$pos" VARIANTS="$*" SEEDS="$SEEDS" MATCH=layout BASELINE=qkv \
        RUNS_DIR="$RUNS_DIR" BUILD="$BUILD" scripts/compare.sh || status=$?
    ((status == 0)) || exit $status
}
wants rope && compare claims rope qkv qv qv:key gqa qv_ka qv_ka:dctx=0 qv_ka:dctx=32 qv_ka:dctx=128 qv_ka:tied qk one
for pos in power alibi sinusoidal; do
    if wants "$pos"; then compare "claims-$pos" "$pos" qkv qv; fi
done
if wants recall; then TASKS="${TASKS:-recall-64-4}" RUNS_DIR="$RUNS_DIR" BUILD="$BUILD" SEEDS="$SEEDS" scripts/recall.sh; fi

# Loss at T, 2T and 4T, of models trained at T (build/evaluate-qkv of the trained runs).
if wants extrapolation; then
    if [[ -x $BUILD/evaluate-qkv ]]; then
        : >"$RUNS_DIR/claims/extrapolation.txt.tmp"
        for pos in rope power alibi; do
            folder=$RUNS_DIR/claims; [[ $pos == rope ]] || folder=$RUNS_DIR/claims-$pos
            for run in "$folder"/qkv-"$pos"-*; do
                [[ -d $run/checkpoints ]] || continue
                "$BUILD/evaluate-qkv" "$run" --times "1 2 4" --no-header |
                    awk -v pos="$pos" -v seed="${run##*-}" '{ if (NR == 1) trained = $5; print "qkv", pos, seed, $5 / trained, $8 }' \
                    >>"$RUNS_DIR/claims/extrapolation.txt.tmp"
            done
        done
        mv "$RUNS_DIR/claims/extrapolation.txt.tmp" "$RUNS_DIR/claims/extrapolation.txt"
    else
        say "$BUILD/evaluate-qkv is missing: the claim about longer contexts stays open"
    fi
fi
"$BUILD/claims" "$RUNS_DIR" --write "$RUNS_DIR/claims.md"
