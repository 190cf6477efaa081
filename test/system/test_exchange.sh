#!/usr/bin/env bash
# export and import against transformers (PyPI): exported logits equal to 1e-4 in fp32, generate() gives the
# same text at temperature 0, models made by transformers come in and give its logits. Skipped, with a message,
# where transformers is not installed.    test/system/test_exchange.sh [build]
# Variants are tested whose evaluate and generate are built: `make test` builds the first one's, `make evaluate` all.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import torch, transformers' 2>/dev/null || {
    echo "test_exchange: skipped: transformers is not installed (pip install torch transformers)"; exit 0; }
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
. test/system/shell_common.sh
make_data
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error HF_HOME=$T/hf TOKENIZERS_PARALLELISM=false
PROMPT='inline void attention(int'
SIZE="--layers 2 --width 32 --heads 4 --context 64 --batch-tokens 512 --micro-batch 4 --warmup 2"
SIZE+=" --lr 1e-2 --val-tokens 128 --val-every 0 --steps 4 --data $DATA --runs-dir $R --quiet"

cat >"$T/compare.py" <<'PY'
# compare.py LIST: of every line "name folder logits text prompt" (tabs) the folder's logits and its greedy text beside ours; of
# "name folder again" its tensors beside those of a second folder. A line "ok NAME: ..." or "FAILED NAME: ..." for each. One process for
# all: to load transformers takes longer than all that is done with it.
import sys
import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

def same_output(folder, logits_file, text_file, prompt):
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    ours = np.fromfile(logits_file, dtype="<f4").reshape(ids.shape[1], -1)
    with torch.no_grad():
        theirs = model(ids).logits[0].numpy()
        written = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30, pad_token_id=0)
    error = np.abs(ours - theirs[:, :ours.shape[1]]).max()
    text = tokenizer.decode(written[0], clean_up_tokenization_spaces=False)
    want = open(text_file, "rb").read()[:-1].decode("utf-8", errors="replace")      # a token may end inside a character
    assert error <= 1e-4, f"logits differ by {error} of {np.abs(theirs).max()}"
    assert text == want, f"theirs: {text!r} ours: {want!r}"
    return f"{type(model).__name__}, logits differ by {error:.2g} of {np.abs(theirs).max():.3g}"

def same_tensors(folder, again):
    a, b = (load_file(d + "/model.safetensors") for d in (folder, again))
    b = {k: v for k, v in b.items() if k in a}
    assert len(a) >= len(b) > 20 and all((a[k][:len(b[k])] == b[k]).all() for k in b), sorted(a)
    return f"{len(b)} tensors equal"

for line in open(sys.argv[1], encoding="utf-8"):
    name, *rest = line.rstrip("\n").split("\t")
    try: print(f"ok {name}: {(same_output if len(rest) == 4 else same_tensors)(*rest)}", flush=True)
    except Exception as e: print(f"FAILED {name}: {type(e).__name__} {e}".replace("\n", " "), flush=True)
PY
to_compare() { local IFS=$'\t'; printf '%s\n' "$*" >>"$T/list"; }
both_ways() {    # variant, positions, class, more options
    local v=$1 pos=$2 class=$3 name=$1-$2
    shift 3
    [[ -x $BUILD/evaluate-$v && -x $BUILD/generate-$v ]] || return
    # shellcheck disable=SC2086
    "$BUILD/train-$v" $SIZE --pos "$pos" --run "$name" "$@" || { report 1 "$name trains" ""; return; }
    expect "$name: exported" 0 "$class" "$BUILD/export" "$R/$name" "$T/$name"
    "$BUILD/evaluate-$v" "$R/$name" --logits "$T/$name.logits" --prompt "$PROMPT" >/dev/null &&
        "$BUILD/generate-$v" "$R/$name" --prompt "$PROMPT" --temperature 0 --tokens 30 --quiet >"$T/$name.text" ||
        report 1 "$name: ours" ""
    to_compare "$name" "$T/$name" "$T/$name.logits" "$T/$name.text" "$PROMPT"
}
both_ways qkv learned GPT2LMHeadModel
both_ways qkv rope Starcoder2ForCausalLM
both_ways qkv alibi QvcuForCausalLM
both_ways gqa rope Starcoder2ForCausalLM
both_ways mqa rope Starcoder2ForCausalLM
both_ways mqa sinusoidal QvcuForCausalLM
both_ways qv rope QvcuForCausalLM --qv-rope vo
both_ways qv power QvcuForCausalLM
both_ways qv_ka rope QvcuForCausalLM
both_ways qv_ka alibi QvcuForCausalLM --qvka-tied
both_ways mla rope QvcuForCausalLM
both_ways mla none QvcuForCausalLM --mla-dr 0 --mla-dcq 0
both_ways gta rope QvcuForCausalLM
both_ways gta alibi QvcuForCausalLM

# Made by transformers: in, the same logits, and out again as it came.
cat >"$T/make.py" <<'PY'
import shutil
import sys
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Starcoder2Config, Starcoder2ForCausalLM
torch.manual_seed(1)
where, tokenizer_json = sys.argv[1:3]
tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer_json)
V = len(tokenizer)
gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2))
starcoder2 = Starcoder2ForCausalLM(Starcoder2Config(
    vocab_size=V, hidden_size=32, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
    max_position_embeddings=64, sliding_window=None, tie_word_embeddings=True, initializer_range=0.2, norm_epsilon=1e-5))
for name, model in (("gpt2", gpt2), ("starcoder2", starcoder2)):
    model.save_pretrained(f"{where}/{name}")
    shutil.copy(tokenizer_json, f"{where}/{name}/tokenizer.json")
    tokenizer.save_pretrained(f"{where}/{name}")
PY
mkdir "$T/theirs"
expect "models with random weights" 0 "" "$PYTHON" "$T/make.py" "$T/theirs" "$T/tokenizer.json"
for name in gpt2 starcoder2; do
    [[ -x $BUILD/evaluate-qkv ]] || continue
    expect "$name: imported" 0 "attention qkv" "$BUILD/import" "$T/theirs/$name" "$R/$name"
    "$BUILD/evaluate-qkv" "$R/$name" --logits "$T/$name.logits" --prompt "$PROMPT" >/dev/null &&
        "$BUILD/generate-qkv" "$R/$name" --prompt "$PROMPT" --temperature 0 --tokens 30 --past-end \
        --quiet >"$T/$name.text" || report 1 "$name: ours" ""
    to_compare "$name" "$T/theirs/$name" "$T/$name.logits" "$T/$name.text" "$PROMPT"
    expect "$name: out again" 0 "" "$BUILD/export" "$R/$name" "$T/$name-again"
    to_compare "$name, out again" "$T/theirs/$name" "$T/$name-again"
done
"$PYTHON" "$T/compare.py" "$T/list" >"$T/compared" 2>"$T/compare.err"
while IFS=$'\t' read -r name _; do
    grep -q "^ok $name: " "$T/compared"
    report $? "$name: transformers has the same" "$(grep "^FAILED $name: " "$T/compared" || tail -n 20 "$T/compare.err")"
done <"$T/list"

# ---- what is wrong is one line
one_line "no such run" 2 "no such folder" "$BUILD/export" "$R/nowhere" "$T/x"
one_line "an exported folder that exists" 2 "--overwrite replaces it" "$BUILD/export" "$R/qkv-learned" "$T/qkv-learned"
mkdir "$T/mine" && touch "$T/mine/file"
one_line "a folder that is something else" 2 "is not an exported model" "$BUILD/export" "$R/qkv-learned" "$T/mine" --overwrite
one_line "import: a run that exists" 2 "choose another name" "$BUILD/import" "$T/theirs/gpt2" "$R/gpt2"
one_line "import: a folder with nothing in it" 2 "no config.json" "$BUILD/import" "$T/mine" "$R/new"
cp -r "$T/theirs/gpt2" "$T/relu" && sed -i 's/"gelu_new"/"relu"/' "$T/relu/config.json"
one_line "import: an activation that the engine does not have" 2 "tanh-GELU" "$BUILD/import" "$T/relu" "$R/new"
cp -r "$T/theirs/gpt2" "$T/larger" && sed -i 's/"n_embd": 32/"n_embd": 64/' "$T/larger/config.json"
one_line "import: tensors of another size" 1 "expected" "$BUILD/import" "$T/larger" "$R/new"
[[ ! -e $R/new ]]; report $? "nothing is left of what failed" "$(ls "$R")"
printf 'test_exchange: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
