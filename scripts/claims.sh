#!/usr/bin/env bash
# Ten claims about these variants, one verdict line each (tools/claims/claims.cpp), from runs that are kept.
# Called by `make claims`; trains what is missing, skips what is done or recorded, continues when repeated. Results: RUNS_DIR/claims.md
#   SEEDS=3   a claim needs three      ONLY="rope power alibi sinusoidal recall extrapolation"   RUNS_DIR BUILD TUNE NICE=15
#   RECORDS=docs/study   where small records of finished runs are kept and found again (tools/compare/records.h);
#                        RECORDS= trains everything
# At the default size 51 runs of one or two core-minutes (an idle machine); the recall probes are 36 runs of six.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUILD=${BUILD:-build} RUNS_DIR=${RUNS_DIR:-runs} SEEDS=${SEEDS:-3} RECORDS=${RECORDS-docs/study}
ONLY=${ONLY:-rope power alibi sinusoidal recall extrapolation}

say() { printf 'claims: %s\n' "$*" >&2; }
[[ -x $BUILD/claims ]] || { say "$BUILD/claims is missing: \`make claims\` builds it"; exit 1; }
wants() { [[ " $ONLY " == *" $1 "* ]]; }
compare() {      # NAME POS rows...
    local name=$1 pos=$2
    shift 2
    say "$name: $*"
    nice -n "${NICE:-0}" env NAME="$name" POS="$pos" VARIANTS="$*" SEEDS="$SEEDS" MATCH=layout BASELINE=qkv \
        RECORDS="$RECORDS" RUNS_DIR="$RUNS_DIR" BUILD="$BUILD" scripts/compare.sh
}
wants rope && compare claims rope qkv qv qv:key gqa qv_ka qv_ka:dctx=0 qv_ka:dctx=32 qv_ka:dctx=128 qv_ka:tied qk one
for pos in power alibi sinusoidal; do
    if wants "$pos"; then compare "claims-$pos" "$pos" qkv qv; fi
done
if wants recall; then
    TASKS="${TASKS:-recall-32-4}" SEEDS="$SEEDS" RECORDS="$RECORDS" RUNS_DIR="$RUNS_DIR" BUILD="$BUILD" scripts/recall.sh
fi

# Loss at T, 2T and 4T, of models trained at T (build/evaluate-qkv of the trained runs), a line for each: row pos seed times loss.
# A run that came from its record has no model any more: then the record's lines stand.
if wants extrapolation; then
    table=$RUNS_DIR/claims/extrapolation.txt recorded=${RECORDS:+$RECORDS/claims/extrapolation.txt}
    mkdir -p "$RUNS_DIR/claims"
    if [[ -n $recorded && -s $recorded && ! -s $table ]]; then cp "$recorded" "$table"; fi
    touch "$table"
    for pos in rope power alibi; do
        folder=$RUNS_DIR/claims; [[ $pos == rope ]] || folder=$RUNS_DIR/claims-$pos
        for run in "$folder"/qkv-"$pos"-*; do
            seed=${run##*-}
            if [[ ! -d $run/checkpoints ]] || grep -q "^qkv $pos $seed " "$table"; then continue; fi
            [[ -x $BUILD/evaluate-qkv ]] || { say "$BUILD/evaluate-qkv is missing: \`make claims\` builds it"; exit 1; }
            lines=$("$BUILD/evaluate-qkv" "$run" --times "1 2 4" --no-header |
                awk -v pos="$pos" -v seed="$seed" '{ if (NR == 1) trained = $5; print "qkv", pos, seed, $5 / trained, $8 }')
            printf '%s\n' "$lines" >>"$table"
        done
    done
    [[ -z $recorded ]] || { mkdir -p "$RECORDS/claims"; cp "$table" "$recorded"; }
fi
"$BUILD/claims" "$RUNS_DIR" --write "$RUNS_DIR/claims.md"
