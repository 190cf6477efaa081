#!/usr/bin/env bash
# Gets a text, trains a tokenizer on it, and encodes it into token shards: data/NAME/{tokenizer.json,train*.bin,val*.bin}.
#   scripts/get_data.sh [--out data/NAME] [--vocab N] [--source auto|shakespeare|kjv|fineweb|FILE...]
#   auto (default)  tiny Shakespeare (1.1 MB, Karpathy's char-rnn); without a network, the King James Bible (4.1 MB) from
#                   Debian's package bible-kjv; with neither, says what to do.
#   fineweb         FineWeb in GPT-2's tokens, for hours on a GPU: --shards N of 100M tokens each (scripts/get_fineweb.sh).
#   FILE...         your own text files.
#   N               the vocabulary: 257 (256 single bytes and <|endoftext|>) or more; default 1024, others get data/NAME-N.
# Relative paths are the caller's.
# Validation: every tenth document (chapter, article), spread over the text, so that it is the same kind of text; the tokenizer
# learns from the others only.
# The last line on stdout is the data folder; everything else goes to stderr. Does nothing when the folder is ready
# (data/NAME/source.txt says from what it was made); two at once take turns. Raw texts are kept in data/raw/.
set -euo pipefail
CALLED_FROM=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SHAKESPEARE_URL=${SHAKESPEARE_URL:-https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt}
SHAKESPEARE_SHA256=86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed
TOKENIZER=${TOKENIZER:-build/tokenizer}
DATA_ROOT=${DATA_ROOT:-data}
SPLIT="every tenth document"     # how validation is held out; a folder made in another way is made again
TRAIN_LIMIT=100000000          # bytes of text that the tokenizer learns from, at most: more changes no merge that matters

say() { printf '%s\n' "$*" >&2; }
die() { say "get_data.sh: $*"; exit 1; }
usage() {
    say "get_data.sh: $*"
    say "usage: scripts/get_data.sh [--out data/NAME] [--vocab N] [--source auto|shakespeare|kjv|fineweb|FILE...]"
    exit 2
}
. scripts/fetch.sh

out="" vocab="" sources=(auto) shards=""
while (($#)); do
    case $1 in
        --out) out=${2:?--out needs a folder}; shift 2 ;;
        --vocab) vocab=${2:?--vocab needs a number}; shift 2 ;;
        --source) shift; sources=(); while (($#)) && [[ $1 != --* ]]; do sources+=("$1"); shift; done ;;
        --shards) shards=${2:?--shards needs a number}; shift 2 ;;
        -h | --help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) usage "$1: no such option" ;;
    esac
done
from_caller() { if [[ $1 == /* || $CALLED_FROM == "$PWD" ]]; then printf '%s' "$1"; else printf '%s/%s' "$CALLED_FROM" "$1"; fi; }
if [[ ${sources[0]-} == fineweb ]]; then
    [[ -z $vocab ]] || usage "--source fineweb is tokenized already, with GPT-2's vocabulary; leave --vocab out"
    more=()
    [[ -z $out ]] || more+=(--out "$(from_caller "$out")")
    [[ -z $shards ]] || more+=(--shards "$shards")
    exec scripts/get_fineweb.sh "${more[@]}"
fi
[[ -z $shards ]] || usage "--shards goes with --source fineweb"
vocab=${vocab:-1024}
[[ $vocab =~ ^[1-9][0-9]{2,6}$ ]] && ((vocab >= 257)) ||
    usage "--vocab $vocab: give a number from 257 (256 single bytes and <|endoftext|>) up, such as 1024"
((${#sources[@]})) || usage "--source needs a name or files"

[[ -z $out ]] || out=$(from_caller "$out")
# What a user without root's rights has to do: through sudo where there is one.
sudo=""
((EUID == 0)) || sudo=$(command -v sudo >/dev/null && echo "sudo " || echo "(as root) ")

# A partial download is continued; only a file with the right checksum gets its final name.
fetch_shakespeare() {
    local file=$DATA_ROOT/raw/tinyshakespeare.txt status=0
    mkdir -p "$DATA_ROOT/raw"
    fetch "$SHAKESPEARE_URL" "$file" "$SHAKESPEARE_SHA256" 1 || status=$?
    ((status != 2)) ||
        say "$SHAKESPEARE_URL: what came is not tiny Shakespeare (checksum $fetch_got, expected $SHAKESPEARE_SHA256)"
    return $status
}

# `bible -f` prints one verse a line after its reference ("Ge1:1 In the beginning ..."). The references are dropped: they would
# be 6% of the text, easily learnt, and would flatter the loss. A blank line stands between chapters.
print_kjv() {
    local file=$DATA_ROOT/raw/kjv.txt
    [[ -s $file ]] && return 0
    command -v bible >/dev/null || return 1
    mkdir -p "$DATA_ROOT/raw"
    part=$file.$$.part
    bible -f "Gen1:1-Rev22:21" </dev/null | awk '{
        reference = $1; chapter = reference; sub(/:.*/, "", chapter)
        if (NR > 1 && chapter != last) print ""
        last = chapter
        print substr($0, length(reference) + 2)
    }' >"$part" || { rm -f "$part"; return 1; }
    (($(wc -c <"$part") > 4000000)) || { rm -f "$part"; say "bible printed less than the whole text"; return 1; }
    mv "$part" "$file"
}

# Ready: its stamp was written last, for this source and vocabulary, and the shards are there.
stamp_value() { [[ -f $1/source.txt ]] && sed -n "s/^$2: //p" "$1/source.txt"; }
is_ready() {    # folder source
    [[ $(stamp_value "$1" source) == "$2" && $(stamp_value "$1" vocabulary) == "$vocab" &&
        $(stamp_value "$1" validation) == "$SPLIT" && -s $1/tokenizer.json ]] &&
        compgen -G "$1/train*.bin" >/dev/null && compgen -G "$1/val*.bin" >/dev/null
}
finish() { printf '%s\n' "$1"; exit 0; }
# Another vocabulary has a folder of its own, so that no run's data is remade under it.
folder_of() { printf '%s' "${out:-$DATA_ROOT/$1$( ((vocab == 1024)) || printf -- '-%s' "$vocab")}"; }

# One at a time in one tree: whoever waited finds all that is common ready. Without flock (util-linux) each makes its own.
mkdir -p "$DATA_ROOT" || die "$DATA_ROOT: cannot be made"
part=""
trap '[[ -z $part ]] || rm -rf "$part"' EXIT
if command -v flock >/dev/null && { exec 9>"$DATA_ROOT/.lock"; } 2>/dev/null; then
    flock -n 9 || { say "another get_data.sh is at work in $DATA_ROOT; waiting for it"; flock 9; }
fi

name="" files=()
case ${sources[0]} in
    auto)
        for s in tinyshakespeare kjv; do is_ready "$(folder_of $s)" $s && finish "$(folder_of $s)"; done
        if fetch_shakespeare; then name=tinyshakespeare
        elif say "tiny Shakespeare can not be fetched; taking the King James Bible (package bible-kjv) instead"; print_kjv; then name=kjv
        else
            die "no text. Do one of:
  open the network to  $SHAKESPEARE_URL
  or save that file as $DATA_ROOT/raw/tinyshakespeare.txt
  or install the King James Bible: ${sudo}apt-get install -y bible-kjv
  or use your own text: scripts/get_data.sh --out data/mine --source FILE..."
        fi ;;
    shakespeare)
        is_ready "$(folder_of tinyshakespeare)" tinyshakespeare && finish "$(folder_of tinyshakespeare)"
        fetch_shakespeare || die "$SHAKESPEARE_URL can not be fetched. Save it as $DATA_ROOT/raw/tinyshakespeare.txt, or use --source kjv"
        name=tinyshakespeare ;;
    kjv)
        is_ready "$(folder_of kjv)" kjv && finish "$(folder_of kjv)"
        print_kjv || die "the program bible is missing: ${sudo}apt-get install -y bible-kjv"
        name=kjv ;;
    *)
        for f in "${sources[@]}"; do files+=("$(from_caller "$f")"); done
        for f in "${files[@]}"; do [[ -f $f && -r $f ]] || die "$f: no such file"; done
        [[ -n $out ]] || usage "--source FILE needs --out data/NAME"
        name="files $(cat "${files[@]}" | sha256sum | cut -d' ' -f1)"
        is_ready "$out" "$name" && finish "$out" ;;
esac
((${#files[@]})) || files=("$DATA_ROOT/raw/$name.txt")
out=$(folder_of "$name")

[[ -x $TOKENIZER ]] || die "$TOKENIZER is missing; build it first: make tokenizer"
mkdir -p "$out"
rm -f "$out/source.txt"                                   # until all is done, the folder is not ready
# Documents: articles under " = Title = " (WikiText), else what stands between blank lines (chapters, speeches), else lines; joined to
# at least `size` bytes. Every tenth is for validation: whole documents, spread evenly over the text.
split_documents() {    # train.txt val.txt files...
    local train=$1 val=$2 kind=line bytes=$3
    shift 3
    if (($(cat "$@" | grep -c '^ = [^=].* = $' || true) >= 20)); then kind=article
    elif (($(cat "$@" | grep -c '^[[:space:]]*$' || true) >= 20)); then kind=blank; fi
    : >"$train"
    : >"$val"
    cat "$@" | LC_ALL=C awk -v kind="$kind" -v size="$((bytes / 100 < 4000 ? bytes / 100 : 4000))" -v train="$train" -v val="$val" '
        function flush() { printf "%s", document > (number++ % 10 == 5 ? val : train); document = "" }
        {
            begins = kind == "line" || (kind == "article" ? $0 ~ /^ = [^=].* = $/ : blank_before && $0 !~ /^[[:space:]]*$/)
            if (begins && length(document) >= size) flush()
            document = document $0 "\n"
            blank_before = $0 ~ /^[[:space:]]*$/
        }
        END { flush() }'
}
bytes=$(cat "${files[@]}" | wc -c)
part=$(mktemp -d "$out/split.XXXXXX")
split_documents "$part/train.txt" "$part/val.txt" "$bytes" "${files[@]}"
val_bytes=$(wc -c <"$part/val.txt")
((val_bytes > 0)) || die "the text has fewer than six documents (blank lines end one): too little to hold some out for validation"
head -c "$TRAIN_LIMIT" "$part/train.txt" >"$part/learn.txt"
say "$name: $bytes bytes, of which $val_bytes for validation; training a tokenizer of $vocab tokens, then encoding into $out"
"$TOKENIZER" train --vocab-size "$vocab" --out "$out/tokenizer.json" --overwrite "$part/learn.txt" >&2
# As one text, training documents first: its tail, to the byte, is the validation split.
fraction=$(awk -v val="$val_bytes" -v train="$(wc -c <"$part/train.txt")" 'BEGIN { printf "%.12f", (val + 0.5) / (val + train) }')
"$TOKENIZER" encode --tokenizer "$out/tokenizer.json" --out "$out" --split tail --val-fraction "$fraction" \
    --overwrite "$part/train.txt" "$part/val.txt" >&2
printf 'source: %s\nvocabulary: %s\nvalidation: %s\nsha256: %s\nbytes: %s\nfiles: %s\n' "$name" "$vocab" "$SPLIT" \
    "$(cat "${files[@]}" | sha256sum | cut -d' ' -f1)" "$bytes" "${files[*]}" >"$out/source.txt.$$"
mv "$out/source.txt.$$" "$out/source.txt"
finish "$out"
