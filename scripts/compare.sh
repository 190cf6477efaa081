#!/usr/bin/env bash
# Trains every variant with every position and seed on the same data and the same batches, then writes the report.
# Called by `make compare`; set what you want to change in the environment: make compare VARIANTS="qkv qv" STEPS=300 SEEDS=3
# Results: runs/NAME/{report.md,report.csv,loss.svg,loss.png} and one run per folder, runs/NAME/VARIANT-POS-SEED/.
# A finished run is kept, an interrupted one continues (Ctrl-C saves first): repeat the same command to go on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# ---- what is compared
VARIANTS=${VARIANTS:-qkv mqa gqa mla qv qv_ka}   # files in attention/; each needs build/train-VARIANT
POS=${POS:-rope}                    # positions: learned sinusoidal rope alibi power none; several: POS="rope alibi"
SEEDS=${SEEDS:-1}                   # how many seeds, 1, 2, ...: three or more for a claim
SIZE=${SIZE:-default}               # tiny: seconds, for tests; default: minutes on a laptop; small, base: hours, for a GPU
SUFFIX=${SUFFIX:-}                  # of the trainers' names: -cuda-bf16 (`make compare BACKEND=cuda` gives it)
NAME=${NAME:-compare-$SIZE$SUFFIX}  # the comparison's folder in runs/
# ---- empty: the size's own value (the table below)
STEPS=${STEPS:-} LR=${LR:-} BATCH_TOKENS=${BATCH_TOKENS:-} CONTEXT=${CONTEXT:-}
LAYERS=${LAYERS:-} HEADS=${HEADS:-} WIDTH=${WIDTH:-} WARMUP=${WARMUP:-} VAL_TOKENS=${VAL_TOKENS:-}
VAL_EVERY=${VAL_EVERY:-}            # steps between validations; default: 20 in a run
SCHEDULE=${SCHEDULE:-cosine}        # cosine wsd linear constant
FINAL_FRACTION=${FINAL_FRACTION:-0} # of lr at the last step; 0 lets the curves end flat (docs/LOG.md)
# ---- where, how
DATA=${DATA:-}                      # folder with train*.bin, val*.bin; default: what scripts/get_data.sh makes
VOCAB=${VOCAB:-1024}                # of the tokenizer that get_data.sh trains
THREADS=${THREADS:-0}               # 0: all
LAUNCH=${LAUNCH:-}                  # before every trainer, such as LAUNCH="mpirun -np 8"
EXTRA=${EXTRA:-}                    # more options for every trainer, such as EXTRA="--grad-clip 0.5"
FRESH=${FRESH:-}                    # 1: train again what is already there
KEEP_GOING=${KEEP_GOING:-}          # 1: after a failed run, go on with the others (the exit code still tells)
DRY_RUN=${DRY_RUN:-}                # 1: print the commands only
BUILD=${BUILD:-build} RUNS_DIR=${RUNS_DIR:-runs} BASELINE=${BASELINE:-qkv}

#          layers width heads context batch_tokens steps  lr    warmup val_tokens
size_row() {
    case $1 in
        tiny)    echo 2     64    4     64      512          60     3e-3  5      4096 ;;
        default) echo 4     128   4     128     1024         900    4e-3  50     32768 ;;      # chosen by the sweep in docs/LOG.md
        small)   echo 6     384   6     256     16384        2000   1e-3  100    131072 ;;
        base)    echo 12    768   12    1024    524288       4800   6e-4  256    1048576 ;;    # GPT-2 124M, 2.5G tokens: 20 per parameter
        *) return 1 ;;
    esac
}

say() { printf '%s\n' "$*" >&2; }
die() { say "compare: $1"; exit "${2:-1}"; }
duration() { local s=$1; if ((s >= 3600)); then printf '%dh%02dm' $((s / 3600)) $((s % 3600 / 60)); elif ((s >= 60)); then printf '%dm%02ds' $((s / 60)) $((s % 60)); else printf '%ds' "$s"; fi; }

row=$(size_row "$SIZE") || die "SIZE=$SIZE: choose tiny, default, small or base" 2
read -r layers width heads context batch_tokens steps lr warmup val_tokens <<<"$row"
layers=${LAYERS:-$layers} width=${WIDTH:-$width} heads=${HEADS:-$heads} context=${CONTEXT:-$context} val_tokens=${VAL_TOKENS:-$val_tokens}
batch_tokens=${BATCH_TOKENS:-$batch_tokens} steps=${STEPS:-$steps} lr=${LR:-$lr}
[[ $SEEDS =~ ^[1-9][0-9]{0,3}$ ]] || die "SEEDS=$SEEDS: give how many seeds, such as 3" 2
[[ $steps =~ ^[1-9][0-9]{0,9}$ ]] || die "STEPS=$steps: give a number of steps" 2
[[ $NAME =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || die "NAME=$NAME: use letters, digits, . _ -" 2
warmup=${WARMUP:-$((warmup < steps / 10 ? warmup : steps / 10))}
val_every=${VAL_EVERY:-$((steps / 20 > 0 ? steps / 20 : 1))}
save_every=$((steps / 5 > 0 ? steps / 5 : 1))

# Everything that can be wrong is found before the first hour of training.
for variant in $VARIANTS; do
    [[ -n $DRY_RUN || -x $BUILD/train-$variant$SUFFIX ]] || die "$BUILD/train-$variant$SUFFIX is missing: \`make compare\` builds it (is there an attention/ file of that name?)"
done
[[ -n $DRY_RUN || -x $BUILD/report ]] || die "$BUILD/report is missing: \`make compare\` builds it"
if [[ -z $DATA ]]; then
    if [[ -n $DRY_RUN ]]; then DATA=data/tinyshakespeare; else DATA=$(scripts/get_data.sh --vocab "$VOCAB"); fi
fi
data_mark=$( (cat "$DATA/source.txt" 2>/dev/null || true; stat -c '%n %s' "$DATA"/*.bin 2>/dev/null || true) | cksum)

folder=$RUNS_DIR/$NAME
[[ -n $DRY_RUN ]] || mkdir -p "$folder/state"
options=(--layers "$layers" --width "$width" --heads "$heads" --context "$context" --batch-tokens "$batch_tokens" --steps "$steps" --lr "$lr"
         --warmup "$warmup" --schedule "$SCHEDULE" --final-fraction "$FINAL_FRACTION" --val-tokens "$val_tokens" --val-every "$val_every" --data "$DATA")
# shellcheck disable=SC2206
options+=($EXTRA)

# The trainer gets its own process group (set -m), so that Ctrl-C reaches it once, through us: the first signal makes it save and
# stop, a second one makes it quit at once.
child="" stopping=""
stop() { stopping=1; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true; }
trap stop INT TERM HUP
train() {    # command...; sets `status`
    set -m
    "$@" &
    child=$!
    set +m
    status=0
    wait "$child" || status=$?
    while kill -0 "$child" 2>/dev/null; do status=0; wait "$child" || status=$?; done      # a signal ends `wait`, not the trainer
    child=""
}

total=0 number=0 trained=0 failed=()
for variant in $VARIANTS; do for pos in $POS; do total=$((total + SEEDS)); done; done
started=$SECONDS
for ((seed = 1; seed <= SEEDS; seed++)); do         # seeds outermost: stopped half-way, there is one whole table
    for pos in $POS; do
        for variant in $VARIANTS; do
            number=$((number + 1))
            run=$variant-$pos-$seed state=$folder/state/$variant-$pos-$seed
            arguments=(--pos "$pos" --seed "$seed" "${options[@]}")
            signature="${arguments[*]} | data $data_mark"
            command=($LAUNCH "$BUILD/train-$variant$SUFFIX" "${arguments[@]}" --runs-dir "$folder" --run "$run" --threads "$THREADS" --save-every "$save_every")
            if [[ -n $DRY_RUN ]]; then printf '%s\n' "${command[*]}"; continue; fi

            before="" past=""
            [[ -f $state ]] && { read -r past && read -r before; } <"$state" || true
            if [[ -z $FRESH && -n $before && $before != "$signature" ]]; then
                die "$folder/$run was trained with other options:
  then: $before
  now:  $signature
Choose another NAME=..., or train it again with FRESH=1" 2
            fi
            if [[ -z $FRESH && $past == done && -s $folder/$run/metrics.jsonl ]]; then
                say "[$number/$total] $variant, $pos, seed $seed: done before, kept"
                continue
            fi
            if [[ -z $FRESH && $past == started ]] && compgen -G "$folder/$run/checkpoints/step-*" >/dev/null; then command+=(--resume); else command+=(--overwrite); fi
            left=""
            if ((trained)); then left=", about $(duration $(((SECONDS - started) * (total - number + 1) / trained))) left"; fi
            say "[$number/$total] $variant, $pos, seed $seed  ($(duration $((SECONDS - started))) so far$left)"
            printf 'started\n%s\n' "$signature" >"$state.tmp" && mv "$state.tmp" "$state"
            train "${command[@]}"
            if ((status == 0)); then
                printf 'done\n%s\n' "$signature" >"$state.tmp" && mv "$state.tmp" "$state"
                trained=$((trained + 1))
            fi
            if [[ -n $stopping ]]; then
                say ""
                say "compare: stopped. Repeat the same command to go on; the finished runs are kept."
                exit 130
            fi
            if ((status != 0)); then
                failed+=("$run (exit $status): ${command[*]}")
                say "compare: $run failed with exit code $status (its message is above)"
                [[ -n $KEEP_GOING ]] || break 3
            fi
        done
    done
done
[[ -z $DRY_RUN ]] || exit 0

if compgen -G "$folder/*/metrics.jsonl" >/dev/null; then
    [[ " $VARIANTS " == *" $BASELINE "* || -d $folder/$BASELINE-${POS%% *}-1 ]] || BASELINE=${VARIANTS%% *}
    "$BUILD/report" "$folder" --baseline "$BASELINE"
fi
if ((${#failed[@]})); then
    say ""
    for f in "${failed[@]}"; do say "compare: FAILED $f"; done
    say "compare: repeat the same command after mending it; the finished runs are kept (KEEP_GOING=1 trains the others first)."
    exit 1
fi
