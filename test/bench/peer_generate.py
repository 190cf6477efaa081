#!/usr/bin/env python3
"""transformers as the decoding peer: generate() on an exported model, on the CPU, in float32 and in bfloat16.

The prompt is read once and N tokens are written, always the likeliest one. What a token costs is the time of N tokens
less that of one, over N - 1: reading the prompt is left out. Medians of `--rounds`. One line a type, and the text in
float32, so that whoever calls this can compare it with the engine's:

    python3 test/bench/peer_generate.py DIR --prompt-file FILE --tokens 64 --threads 2 --text FILE
    peer transformers-VERSION torch-VERSION type float32 ms_per_token N tokens_per_s N prompt_tokens N

Not for: logits and texts as a test (test/system/test_exchange.sh).
"""
import argparse
import statistics
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("dir")
parser.add_argument("--prompt-file", required=True)
parser.add_argument("--tokens", type=int, default=64)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--text", help="where the text in float32 goes")
o = parser.parse_args()
torch.set_num_threads(o.threads)
tokenizer = AutoTokenizer.from_pretrained(o.dir, trust_remote_code=True)
ids = tokenizer(open(o.prompt_file, encoding="utf-8").read(), return_tensors="pt").input_ids


def written(model, tokens):
    start = time.perf_counter()
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens,
                             min_new_tokens=tokens, pad_token_id=0)
    return time.perf_counter() - start, out[0, ids.shape[1]:]


for dtype in (torch.float32, torch.bfloat16):
    model = AutoModelForCausalLM.from_pretrained(o.dir, trust_remote_code=True, dtype=dtype).eval()
    written(model, 2)
    one, few = written(model, 1)[0], written(model, 5)[0]
    slow = dtype != torch.float32 and (few - one) / 4 > fastest        # no bf16 instructions: once is enough to see it
    each = []
    for _ in range(1 if slow else o.rounds):
        one, _ = written(model, 1)
        tokens = 9 if slow else o.tokens
        all_of_them, new = written(model, tokens)
        each.append((all_of_them - one) / (tokens - 1))
    fastest = min(each)
    ms = 1e3 * statistics.median(each)
    print(f"peer transformers-{transformers.__version__} torch-{torch.__version__} type {str(dtype)[6:]} "
          f"ms_per_token {ms:.2f} tokens_per_s {1e3 / ms:.2f} prompt_tokens {ids.shape[1]}", flush=True)
    if dtype == torch.float32 and o.text:
        open(o.text, "w", encoding="utf-8").write(tokenizer.decode(new, clean_up_tokenization_spaces=False))
