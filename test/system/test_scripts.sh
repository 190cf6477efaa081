#!/usr/bin/env bash
# Tests of scripts/: setup.sh, get_data.sh, compare.sh with stand-ins for apt, the tokenizer and the trainers, and build/report on
# made-up runs. No network, nothing is installed, a few seconds.    test/system/test_scripts.sh [build]
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
failures=0 checks=0
BASH_PATH=$(command -v bash)

check() {        # description, expected exit code, text that must appear ("" for none), command...
    local what=$1 code=$2 text=$3 got output
    shift 3
    output=$("$@" 2>&1)
    got=$?
    checks=$((checks + 1))
    if [[ $got != "$code" || $output != *"$text"* ]]; then
        failures=$((failures + 1))
        printf 'FAILED: %s\n  command: %s\n  exit code %s, expected %s; expected text: %s\n%s\n' "$what" "$*" "$got" \
            "$code" "$text" "$output" | head -40
    fi
}
stand_in() { printf '#!%s\n%s\n' "$BASH_PATH" "$2" >"$1"; chmod +x "$1"; }       # file, script

# ---- setup.sh
nothing() { env -i PATH=/nonexistent "$@" "$BASH_PATH" scripts/setup.sh "${MODE:-build}"; }
apt="apt-get update && apt-get install -y"
check "an empty machine is told the exact command, without the sudo that it lacks" 1 \
    $'install with:\n  '"$apt g++ make libcli11-dev nlohmann-json3-dev libxxhash-dev libdnnl-dev libopenblas-dev" nothing
MODE=test check "tests need doctest and procps" 1 "libxxhash-dev doctest-dev procps" nothing
MODE=compare check "compare wants rsvg-convert, curl and a text" 1 "librsvg2-bin curl" nothing
MODE=data check "so does make data" 1 "openmpi-bin curl" nothing
MODE=data check "(the text)" 1 "bible-kjv" nothing
if [[ -x /usr/bin/setpriv ]]; then
    cp -r scripts "$T/scripts" && chmod -R a+rX "$T"
    stand_in "$T/sudo" 'exit 1'
    user() { env -i PATH="$1" /usr/bin/setpriv --reuid 65534 --regid 65534 --clear-groups "$BASH_PATH" "$T/scripts/setup.sh" build; }
    if ((EUID == 0)); then
        check "a user where there is no sudo" 1 "(as root; there is no sudo here)" user /nonexistent
        mkdir "$T/sudo-bin" && mv "$T/sudo" "$T/sudo-bin/"
        check "a user where sudo asks for a password" 1 "sudo apt-get update && sudo apt-get install -y g++" user "$T/sudo-bin"
    fi
fi
MODE=typo check "an unknown mode" 2 "usage" nothing
mkdir "$T/bin"
mkdir -p "$T/headers/include/CLI" "$T/headers/include/nlohmann"
touch "$T/headers/include/"{CLI/CLI.hpp,nlohmann/json.hpp,xxhash.h,dnnl.h,cblas.h}
check "headers in DEPS are enough" 0 "" env DEPS="$T/headers" NO_INSTALL=1 scripts/setup.sh build
stand_in "$T/bin/g++" 'echo 9'
stand_in "$T/bin/make" ':'
check "an old compiler is named" 1 "found g++ 9" env -i PATH="$T/bin" "$BASH_PATH" scripts/setup.sh build
rm "$T/bin/g++"
# apt-get here knows no package until `update`, never knows libdnnl-dev, and its g++ finds the headers of what was installed.
if ((EUID == 0)); then
    for tool in env mkdir sleep; do ln -s "$(command -v $tool)" "$T/bin/$tool"; done
    stand_in "$T/bin/apt-get" 'echo "$*" >>'"$T/apt.log"'
[[ $* == *" update" ]] && { echo >'"$T/updated"'; exit 0; }
[[ -f '"$T/updated"' && $* != *libdnnl-dev* && $DEBIAN_FRONTEND == noninteractive ]] || { echo "E: Unable to locate package"; exit 100; }
echo "$*" >>'"$T/installed"'
printf "%s\n" "#!'"$BASH_PATH"'" "[[ \$* == *dumpversion* ]] && echo 12 && exit" \
    "while read -r line; do [[ \$line == have* ]] && [[ \$line != *dnnl* ]] && echo \"\$line\"; done" "exit 0" >'"$T/bin/g++"'
'"$(command -v chmod)"' +x '"$T/bin/g++"
    on_root() { env -i PATH="$T/bin" BUILD="$T/state" "$BASH_PATH" scripts/setup.sh build; }
    check "installs after one update, lives without what the archive lacks" 0 "works without, better with: $apt libdnnl-dev" on_root
    check "apt was updated once" 0 "1" grep -c " update" "$T/apt.log"
    lines=$(wc -l <"$T/apt.log")
    check "the second time nothing is tried" 0 "works without" on_root
    check "(no further apt call)" 0 "$lines" wc -l "$T/apt.log"
fi

# ---- get_data.sh
mkdir "$T/tools"
for tool in grep dirname sed cut sha256sum mkdir rm cat awk wc mktemp head mv curl wget; do
    ln -s "$(command -v $tool || command -v true)" "$T/tools/$tool"; done
get_data() { env -i PATH="$T/tools" DATA_ROOT="$T/data" TOKENIZER="$T/tokenizer" \
    SHAKESPEARE_URL=http://127.0.0.1:9/input.txt "$BASH_PATH" scripts/get_data.sh "$@"; }
stand_in "$T/tokenizer" 'mode=$1; out=""; while (($#)); do [[ $1 == --out ]] && out=$2; shift; done
echo "$mode" >>'"$T/tokenizer.log"'
if [[ $mode == train ]]; then echo "{}" >"$out"; else echo x >"$out/train.bin"; echo x >"$out/val.bin"; fi'
check "no network, no bible: says what to do" 1 "apt-get install -y bible-kjv" get_data
check "(and leaves no folder that looks ready)" 1 "" test -e "$T/data/tinyshakespeare/source.txt"
check "shakespeare alone does not fall back" 1 "can not be fetched" get_data --source shakespeare
check "a vocabulary below the bytes" 2 "--vocab" get_data --vocab 12
check "the bytes alone are too few: there is <|endoftext|> too" 2 "from 257" get_data --vocab 256
check "(which the help says)" 0 "257" get_data --help
check "a missing file" 1 "/absent.txt: no such file" get_data --out "$T/data/mine" --source /absent.txt
seq 1 2000 >"$T/mine.txt"
check "own text" 0 "$T/data/mine" get_data --out "$T/data/mine" --source "$T/mine.txt"
check "its stamp" 0 "vocabulary: 1024" cat "$T/data/mine/source.txt"
check "again: nothing is done" 0 "$T/data/mine" get_data --out "$T/data/mine" --source "$T/mine.txt"
check "(the tokenizer ran once)" 0 "train
encode" cat "$T/tokenizer.log"
elsewhere() { (cd "$T" && env -i PATH="$T/tools" DATA_ROOT="$T/data" TOKENIZER="$T/tokenizer" "$BASH_PATH" \
    "$OLDPWD/scripts/get_data.sh" "$@"); }
check "relative paths are the caller's" 0 "$T/data/mine" elsewhere --out data/mine --source mine.txt
check "(the same folder, still ready)" 0 "2" grep -c . "$T/tokenizer.log"
seq 1 2001 >"$T/mine.txt"
check "changed text is encoded again" 0 "training a tokenizer" get_data --out "$T/data/mine" --source "$T/mine.txt"
mkdir -p "$T/data/raw"
echo "not shakespeare" >"$T/data/raw/tinyshakespeare.txt"
check "a file of the right name with other content is not taken" 1 "can not be fetched" get_data --source shakespeare
verse='echo "Ge$((i / 30)):$i In the beginning God created the heaven and the earth, and the rest, verse $i."'
stand_in "$T/tools/bible" "for i in {1..50000}; do $verse; done"
check "the King James Bible is taken instead" 0 "$T/data/kjv" get_data
check "another vocabulary has a folder of its own" 0 "$T/data/kjv-300" get_data --vocab 300
check "its references are gone" 0 "In the beginning God" head -n 1 "$T/data/raw/kjv.txt"

# Two at once with nothing there yet: with flock the second waits, without it each makes its own; both find the whole text.
stand_in "$T/slow-bible" "for i in {1..50000}; do ((i % 10000)) || sleep 0.2; $verse; done"
mv "$T/tools/bible" "$T/fast-bible" && mv "$T/slow-bible" "$T/tools/bible"
ln -s "$(command -v sleep)" "$T/tools/sleep"
for with in without-flock flock; do
    [[ $with == flock ]] && ln -s "$(command -v flock || command -v true)" "$T/tools/flock"
    two() { DATA_ROOT=$T/two-$with; env -i PATH="$T/tools" DATA_ROOT="$T/two-$with" TOKENIZER="$T/tokenizer" \
        "$BASH_PATH" scripts/get_data.sh --source kjv; }
    two >"$T/two.log" 2>&1 &
    check "two at once: $with" 0 "$T/two-$with/kjv" two
    wait $!
    check "two at once: $with, the other" 0 "0" echo $?
    check "two at once: $with, nothing is left over" 0 "1" bash -c "ls '$T/two-$with/raw' | wc -l"
done
rm "$T/tools/flock"
mv "$T/fast-bible" "$T/tools/bible"

# ---- the Makefile's own words
make_says() { env -u MAKEFLAGS -u MAKELEVEL -u MAKEOVERRIDES make -n "$@"; }
check "a mistyped variant, before anything is compiled" 2 \
    "qvv: no such variant, there is no attention/qvv.h; choose among: qkv" make_says compare VARIANTS="qkv qvv"
check "a mistyped ATTN" 2 "kqv: no such variant" make_says ATTN=kqv
check "an unknown BLAS" 2 "BLAS=mkl: choose auto, onednn, openblas or none" make_says build/tokenizer BLAS=mkl
stand_in "$T/no-openblas" '[[ $* == *-lopenblas* || $* == *-ldnnl* ]] && exit 1; exec g++ "$@"'
check "a BLAS whose header alone is there" 2 \
    "BLAS=openblas: no program can be linked with -lopenblas; apt-get install libopenblas-dev" make_says \
    build/tokenizer BLAS=openblas CXX="$T/no-openblas"
check "(auto then takes none)" 0 "build/obj/cpu-fp32-none-native/tokenizer/main.o" make_says -B build/tokenizer CXX="$T/no-openblas" V=1

# ---- compare.sh with stand-in trainers
mkdir -p "$T/build" "$T/shards"
touch "$T/shards/train.bin" "$T/shards/val.bin"
trainer='if [[ $* == --help ]]; then
    echo "Attention --gqa-form       NAME  one | two"
    echo "          --gqa-tied             a flag"
    echo "Model     --kv-heads       N     heads"
    exit 0
fi
if [[ $* == *--dry-run* ]]; then
    printf "%s" "numbers   {\"parameters\":1048576,\"parameters_non_embedding\":786432,\"cache_bytes_per_token\":4096,"
    echo "\"flops_per_token\":5505024,\"memory_bytes\":${MEMORY:-1000000}}"
    echo "numbers   {\"step_seconds\":0.5}"
    exit 0
fi
echo "$*" >>'"$T/trainer.log"'
dir="" run="" seed=1 attn=${0##*-}
while (($#)); do case $1 in --runs-dir) dir=$2;; --run) run=$2;; --seed) seed=$2;; esac; shift; done
mkdir -p "$dir/$run/checkpoints/step-10"
trap "echo saved >'"$T/saved"'; exit 75" TERM
if [[ $attn == gqa && -f '"$T/slow"' ]]; then echo running >'"$T/running"'; for i in {1..100}; do sleep 0.05; done; fi
if [[ $attn == mla ]]; then echo "mla: cannot factor 7" >&2; exit 3; fi
loss=2.0; [[ $attn == gqa ]] && loss=2.1; [[ $seed == 2 ]] && loss=${loss}5
[[ $attn == gqa && -f '"$T/noisy"' ]] && loss=$((seed % 3 + 1)).$seed
cat >"$dir/$run/config.json" <<END
{"attn": "$attn", "options": {"pos": "rope", "seed": $seed, "steps": 20, "batch_tokens": 512, "lr": 0.003, "threads": 2},
 "model": {"parameters": 1048576, "parameters_non_embedding": 786432, "cache_bytes_per_token": 4096,
           "flops_per_token": 5505024, "vocab_size": 512},
 "machine": {"cpu": "Z80", "threads": 2}, "build": {"commit": "abc", "compiler": "g++"},
 "data": {"train_tokens": 1024, "val_tokens": 512, "fingerprint": "f"}}
END
for step in 0 10 18 20; do
    printf "%s" "{\"step\": $step, \"tokens\": $((step * 512)), \"seconds\": $step, \"loss\": 2.2, \"val_loss\": $loss, "
    echo "\"bits_per_byte\": 1.5, \"lr\": 0.1, \"grad_norm\": 1, \"tokens_per_second\": 1500, \"mfu\": null}"
done >"$dir/$run/metrics.jsonl"'
for variant in qkv gqa mla; do stand_in "$T/build/train-$variant" "$trainer"; done
ln -s "$BUILD/report" "$BUILD/compare" "$T/build/"
compare() { env BUILD="$T/build" RUNS_DIR="$T/runs" DATA="$T/shards" NAME=c SIZE=tiny SEEDS=1 "$@" scripts/compare.sh; }
check "an unknown size" 2 "choose tiny" compare SIZE=huge VARIANTS=qkv
check "a missing trainer is found before training" 1 "train-qv is missing" compare VARIANTS="qkv qv"
check "a dry run prints the commands" 0 "--layers 2 --width 64 --heads 4 --context 64 --batch-tokens 512 --steps 60" \
    compare VARIANTS=qkv DRY_RUN=1
check "(and trains nothing)" 1 "" test -e "$T/trainer.log"
check "two variants" 0 "[2/2] gqa, rope, seed 1" compare VARIANTS="qkv gqa" STEPS=20
cp "$T/build/train-qkv" "$T/build/train-qkv-cpu-bf16"
check "runs in another precision are not taken for these" 2 "| trainer -cpu-bf16" compare VARIANTS=qkv STEPS=20 SUFFIX=-cpu-bf16
check "bf16 has the folder of fp32" 0 "/compare-tiny --run qkv-rope-1" compare NAME= VARIANTS=qkv DRY_RUN=1 SUFFIX=-cpu-bf16
check "(and another norm its own)" 0 "/compare-tiny-rmsnorm --run" compare NAME= VARIANTS=qkv DRY_RUN=1 SUFFIX=-rmsnorm-cpu-bf16
report=$T/runs/c/report.md
check "the report's row" 0 "| gqa | 2.1000 | +0.1000 | one seed | 4096 | 786.4k | 1.5000 |" cat "$report"
check "the baseline's row" 0 "| qkv | 2.0000 | 0 | baseline | 4096 | 786.4k | 1.5000 |" cat "$report"
check "sizes and speed" 0 "| gqa | 1.049M | 786.4k | 4096 | 5.505M | 1500 | 20s |" cat "$report"
check "the uniform model" 0 "ln 512 = 6.2383 nats" cat "$report"
check "one seed is not a claim" 0 "a verdict needs 3: SEEDS=3" cat "$report"
check "csv" 0 "gqa-rope-1,gqa,rope,,1,20,1,1048576,786432,4096,5505024,1500,20,2.1,1.5,0.1" cat "$T/runs/c/report.csv"
check "json" 0 '"verdict": "one seed"' cat "$T/runs/c/report.json"
check "the page" 0 "<title>Comparison c</title>" cat "$T/runs/c/report.html"
check "pictures" 0 "loss against cache" cat "$T/runs/c/cache.svg"
if command -v rsvg-convert >/dev/null; then check "(and as PNG)" 0 "PNG" head -c 4 "$T/runs/c/loss.png"; fi
check "the finished runs are kept" 0 "[2/2] gqa, rope, seed 1: done before, kept" compare VARIANTS="qkv gqa" STEPS=20
check "other options under the same name are refused" 2 "FRESH=1" compare VARIANTS="qkv gqa" STEPS=10
check "a second seed joins" 0 "+0.1000 [+0.1000, +0.1000]" compare VARIANTS="qkv gqa" STEPS=20 SEEDS=2
check "(four trainings in all)" 0 "4" grep -c . "$T/trainer.log"
check "a failing variant: message and exit code" 1 "mla-rope-1 failed with exit code 3" compare VARIANTS="mla qkv" STEPS=20
check "(its own words are seen)" 1 "mla: cannot factor 7" compare VARIANTS="mla qkv" STEPS=20
touch "$T/slow"
env BUILD="$T/build" RUNS_DIR="$T/runs" DATA="$T/shards" NAME=s SIZE=tiny SEEDS=1 VARIANTS="qkv gqa" STEPS=20 \
    scripts/compare.sh >"$T/stopped.log" 2>&1 &
pid=$!
# gqa at work and qkv done: only one of them is to be caught
for i in {1..100}; do [[ -f $T/running ]] && grep -qsx "done" "$T/runs/s/state/qkv-rope-1" && break; sleep 0.04; done
kill -TERM $pid
wait $pid
check "a signal reaches the trainer, which saves" 0 "saved" cat "$T/saved"
check "stopped, and says how to go on" 0 "Repeat the same command" cat "$T/stopped.log"
rm "$T/slow"
check "then it continues" 0 "[1/2] qkv, rope, seed 1: done before, kept" compare NAME=s VARIANTS="qkv gqa" STEPS=20
check "(with --resume)" 0 "--resume" tail -n 1 "$T/trainer.log"

# ---- rows, options of their own, the plan
dry() { compare DRY_RUN=1 NAME=d "$@"; }
check "a row with a flag and a number" 0 "--gqa-tied --kv-heads 1 --save-every" dry VARIANTS="gqa:tied,kv-heads=1"
check "(its folder)" 0 "--run gqa.tied.kv-heads1-rope-1" dry VARIANTS="gqa:tied,kv-heads=1"
check "a row with a choice" 0 "--gqa-form two --save-every" dry VARIANTS="gqa:two"
check "an option for every row of a variant" 0 "--kv-heads 2 --gqa-form two --save-every" dry VARIANTS="gqa:two" OPTIONS_gqa="--kv-heads 2"
check "a row's option that is not there" 2 "gqa has no option dc (its own: form, tied)" dry VARIANTS="gqa:dc=3"
check "a row twice" 2 "gqa is there twice" dry VARIANTS="gqa gqa"
check "an unknown way of being equal" 2 "choose of layout" dry VARIANTS=gqa MATCH=weight
check "a number of seeds" 2 "SEEDS=many" compare SEEDS=many VARIANTS=qkv
check "seeds follow from the minutes: 60 steps of half a second" 0 "2 rows x 1 position x 2 seeds" compare NAME=m \
    VARIANTS="qkv gqa" SEEDS= MINUTES=4 AT_ONCE=1
check "(and stay as planned)" 0 "x 2 seeds" compare NAME=m VARIANTS="qkv gqa" SEEDS= MINUTES=60 AT_ONCE=1
auto() { compare VARIANTS="qkv gqa" STEPS=20 SEEDS=auto "$@"; }
check "SEEDS=auto says its limit" 0 "= 16 runs of" auto NAME=auto
check "(and stops when all is decided)" 0 "decided after 3 seeds" auto NAME=auto
check "(three looks, each at a third of 5%)" 0 '"alpha": 0.01666' cat "$T/runs/auto/report.json"
check "(said)" 0 "up to 3 looks, each at its share of 5%" cat "$T/runs/auto/report.md"
touch "$T/noisy"
check "more seeds while a row is undecided" 0 "after 4 seeds undecided: gqa, rope. On to 6" auto NAME=noisy LOOKS="4 6"
check "(up to the limit)" 0 "12" bash -c "ls -d '$T'/runs/noisy/*-rope-? | wc -l"
check "(the same command finds it done)" 0 "[4/4] gqa, rope, seed 6: done before, kept" auto NAME=noisy LOOKS="4 6"
rm "$T/noisy"
check "looks that do not rise" 2 "LOOKS=5 4: give rising numbers of seeds from 3 on" auto LOOKS="5 4"
check "looks that are blank" 2 "LOOKS is blank" auto LOOKS=" "
check "comparison.json" 0 '"finished": 4' cat "$T/runs/m/comparison.json"
half=$(awk '/^MemAvailable/ { printf "%.0f", $2 * 600 }' /proc/meminfo)
check "what does not fit in memory side by side runs one after the other" 0 "1 at a time" compare NAME=n \
    VARIANTS="qkv gqa" AT_ONCE=2 MEMORY="$half"
check "what does not fit at all is said before training" 1 "GiB of memory and the machine has" compare NAME=n \
    VARIANTS="qkv gqa" MEMORY=1000000000000000
check "records are kept" 0 "" compare NAME=r VARIANTS="qkv gqa" STEPS=20 RECORDS="$T/records"
check "(thinned logs)" 0 "" test -s "$T/records/r/gqa-rope-1/metrics.jsonl"
check "(of runs that were trained without, too)" 0 "done before, kept" compare VARIANTS="qkv gqa" STEPS=20 RECORDS="$T/late"
check "(with the comparison's plan and rates)" 0 "" test -s "$T/late/c/gqa-rope-1/signature" -a -s "$T/late/c/comparison.json" \
    -a -s "$T/late/c/learning_rates.json"
check "(and the command)" 0 "The comparison again: \`NAME=c SIZE=tiny VARIANTS='qkv gqa' SEEDS=1 STEPS=20" cat "$T/runs/c/report.md"
rm -r "$T/runs/r"
check "a comparison is taken up from its records" 0 "[2/2] gqa, rope, seed 1: done before, kept" compare NAME=r \
    VARIANTS="qkv gqa" STEPS=20 RECORDS="$T/records"
check "what another comparison has recorded is not trained again" 0 "[1/1] qkv, rope, seed 1: done before, kept" compare NAME=other \
    VARIANTS="qkv" STEPS=20 RECORDS="$T/records"
check "(and is in its records too)" 0 "" cmp "$T/records/r/qkv-rope-1/metrics.jsonl" "$T/records/other/qkv-rope-1/metrics.jsonl"
again() { compare NAME=more VARIANTS="qkv" STEPS=30 RECORDS="$T/records" 2>&1 | grep "done before"; }
check "with other options it is" 1 "" again

# ---- report
check "no runs" 1 "no run in it" "$BUILD/report" "$T/shards"
check "no arguments" 2 "which runs?" "$BUILD/report"
check "a wrong option" 2 "--nope: unknown option" "$BUILD/report" --nope
mkdir -p "$T/odd dir's/empty"
cp -r "$T/runs/c/qkv-rope-1" "$T/odd dir's/"
echo '{}' >"$T/odd dir's/empty/config.json"
check "a run without metrics is named, odd folder names work" 0 "holds no measurement" "$BUILD/report" "$T/odd dir's"
check "without rsvg-convert there is the SVG, and it says how to get PNG" 0 "apt-get install -y librsvg2-bin" env \
    PATH=/nonexistent "$BUILD/report" "$T/runs/c" --out "$T/no-plot"
check "(the table)" 0 "| gqa | 2.1250 ± 0.0354 | +0.1000 | two seeds |" cat "$T/no-plot/report.md"
check "quiet" 0 "" test -z "$("$BUILD/report" "$T/runs/c" --quiet)"
check "a wrong level" 2 "--alpha: 'x' is not a number" "$BUILD/report" "$T/runs/c" --alpha x
check "records want two folders" 2 "report --record RUNS DIR" "$BUILD/report" --record "$T/runs/c"
check "records of a comparison" 0 "4 runs recorded in $T/kept" "$BUILD/report" --record "$T/runs/c" "$T/kept"
"$BUILD/report" "$T/runs/c" --quiet --out "$T/from-runs" && "$BUILD/report" "$T/kept" --quiet --out "$T/from-records"
check "from the records the same tables" 0 "" diff <(grep '^|' "$T/from-runs/report.md") <(grep '^|' "$T/from-records/report.md")

printf 'test_scripts: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
