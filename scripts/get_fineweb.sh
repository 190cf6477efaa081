#!/usr/bin/env bash
# Gets FineWeb, tokenized with GPT-2's vocabulary, as shards of 100M tokens (200 MB each): the data of the modded-nanogpt recipe.
#   scripts/get_fineweb.sh [--out data/fineweb] [--shards N]        N of 103 for training, default 1; and one for validation
# scripts/get_data.sh --source fineweb calls it. A partial download is continued. A shard gets its name when its size and SHA-256 are those
# that the address tells (the pointer of git-lfs, ADDRESS/raw/main/FILE); the vocabulary's are written below. What is there is kept: more
# shards are added by a larger N. The last line on stdout is the folder; everything else goes to stderr.
#   FINEWEB_URL, GPT2_URL: other addresses, such as a mirror's
set -euo pipefail
CALLED_FROM=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
FINEWEB_URL=${FINEWEB_URL:-https://huggingface.co/datasets/kjj0/fineweb10B-gpt2}
GPT2_URL=${GPT2_URL:-https://openaipublic.blob.core.windows.net/gpt-2/encodings/main}
ENCODER_SHA256=${ENCODER_SHA256:-196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783}
BPE_SHA256=${BPE_SHA256:-1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5}
TOKENIZER=${TOKENIZER:-build/tokenizer}
DATA_ROOT=${DATA_ROOT:-data}
SHARDS_THERE=103

say() { printf '%s\n' "$*" >&2; }
die() { say "get_fineweb.sh: $*"; exit 1; }
usage() { say "get_fineweb.sh: $*"; say "usage: scripts/get_fineweb.sh [--out data/fineweb] [--shards N]"; exit 2; }
out=$DATA_ROOT/fineweb shards=1
while (($#)); do
    case $1 in
        --out) out=${2:?--out needs a folder}; [[ $out == /* || $CALLED_FROM == "$PWD" ]] || out=$CALLED_FROM/$out; shift 2 ;;
        --shards) shards=${2:?--shards needs a number}; shift 2 ;;
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) usage "$1: no such option" ;;
    esac
done
[[ $shards =~ ^[1-9][0-9]{0,2}$ ]] && ((shards <= SHARDS_THERE)) || usage "--shards $shards: give a number from 1 to $SHARDS_THERE"
command -v curl >/dev/null || die "curl is missing; \`make data\` installs it, or: apt-get install -y curl"
[[ -x $TOKENIZER ]] || die "$TOKENIZER is missing; build it first: make tokenizer"
mkdir -p "$out" || die "$out: cannot be made"
command -v flock >/dev/null && { exec 9>"$out/.lock"; flock -n 9 || die "another get_fineweb.sh is at work in $out"; }

. scripts/fetch.sh
fetch_or_die() { # address, file, sha256
    local status=0
    fetch "$@" || status=$?
    ((status != 1)) || die "$1: cannot be fetched; repeat the command when the network is open (what came is kept), or save the file as $2"
    ((status == 0)) || die "$1: what came has the checksum $fetch_got, expected $3"
}
# A shard under the trainer's names: train_000001.bin, val_000000.bin. FILE.sha256 is written when it was found whole.
shard() {        # name there, name here
    local file=$out/$2 pointer sha size
    if [[ -s $file.sha256 && -f $file && $(cut -d' ' -f2 "$file.sha256") == "$(wc -c <"$file")" ]]; then return; fi
    pointer=$(curl -fsSL --connect-timeout 15 --max-time 60 "$FINEWEB_URL/raw/main/$1") ||
        die "$FINEWEB_URL/raw/main/$1: cannot be fetched; is the network open?"
    sha=$(sed -n 's/^oid sha256:\([0-9a-f]\{64\}\)$/\1/p' <<<"$pointer")
    size=$(sed -n 's/^size \([0-9]*\)$/\1/p' <<<"$pointer")
    [[ -n $sha && -n $size ]] || die "$FINEWEB_URL/raw/main/$1: is not a pointer with oid and size, but begins: ${pointer:0:60}"
    local free=$(($(df -Pk "$out" | awk 'NR == 2 { print $4 }') * 1024)) have
    have=$(bytes_in "$file.part")
    ((free > size - have)) || die "$out: $1 takes $((size >> 20)) MiB and $((free >> 20)) MiB are free"
    say "$1: $((size >> 20)) MiB"
    fetch_or_die "$FINEWEB_URL/resolve/main/$1" "$file" "$sha"
    printf '%s %s\n' "$sha" "$size" >"$file.sha256"
}

# The vocabulary as tokenizer.json: the tokenizer writes it beside any text that it encodes.
if [[ ! -s $out/tokenizer.json ]]; then
    mkdir -p "$out/gpt2"
    fetch_or_die "$GPT2_URL/encoder.json" "$out/gpt2/encoder.json" "$ENCODER_SHA256"
    fetch_or_die "$GPT2_URL/vocab.bpe" "$out/gpt2/vocab.bpe" "$BPE_SHA256"
    printf 'any text\n\nwill do\n' >"$out/gpt2/text.txt"
    "$TOKENIZER" encode --tokenizer "$out/gpt2" --out "$out/gpt2/encoded" --val-fraction 0.5 --overwrite "$out/gpt2/text.txt" >&2
    mv "$out/gpt2/encoded/tokenizer.json" "$out/tokenizer.json"
    rm -rf "$out/gpt2"
fi
shard fineweb_val_000000.bin val_000000.bin
for ((i = 1; i <= shards; i++)); do
    name=$(printf '%06d.bin' "$i")
    shard "fineweb_train_$name" "train_$name"
done
say "$out: $shards training shards of 100M tokens, one for validation; the tokenizer is GPT-2's (50257 tokens)"
printf '%s\n' "$out"
