#!/usr/bin/env python3
"""PyTorch as the speed peer: the time of one training step of the engine's GPT-2, written the way people write it.

One step = forward, loss, backward, clip by global norm, AdamW, zero_grad; on the CPU, in float32, and with forward and
loss in bfloat16 autocast. The model is GPT-2 with learned positions, one fused q,k,v linear, the tied head over the
padded vocabulary [Radford et al. 2019; the layout of nanoGPT]. Every setting that this PyTorch offers is timed for
`--seconds`, each on a fresh model from the same seed; the last line is the fastest, so the peer is PyTorch at its best:

    python3 test/bench/peer_torch.py --layers 4 --width 128 --heads 4 --context 128 --vocab 256 --batch 16
    peer torch-VERSION tokens_per_s N ms MEDIAN min_ms FASTEST setting ATTENTION,ADAMW,MODE,TYPE threads N blas NAME ...

Not for: reference values (test/golden), GPUs.
"""
import argparse
import math
import os
import re
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, C, NH, sdpa, context):
        super().__init__()
        self.NH, self.sdpa = NH, sdpa
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.o = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc, self.proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
        self.register_buffer("future", torch.ones(context, context, dtype=torch.bool).triu(1), persistent=False)

    def attention(self, x):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.NH, C // self.NH).transpose(1, 2) for t in self.qkv(x).split(C, dim=2))
        if self.sdpa:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-2, -1)) / math.sqrt(C // self.NH)
            y = F.softmax(scores.masked_fill(self.future[:T, :T], -math.inf), dim=-1) @ v
        return self.o(y.transpose(1, 2).reshape(B, T, C))

    def forward(self, x):
        x = x + self.attention(self.ln_1(x))
        return x + self.proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, o, sdpa):
        super().__init__()
        self.Vp = (o.vocab + 127) // 128 * 128
        self.wte, self.wpe = nn.Embedding(self.Vp, o.width), nn.Embedding(o.context, o.width)
        self.blocks = nn.ModuleList(Block(o.width, o.heads, sdpa, o.context) for _ in range(o.layers))
        self.ln_f = nn.LayerNorm(o.width)
        for p in self.parameters():
            if p.dim() >= 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe.weight[:tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, self.Vp), targets.view(-1))


def make_step(o, attention, adamw, mode, dtype):
    torch.manual_seed(1)
    model = GPT(o, attention == "sdpa")
    groups = [{"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
              {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}]
    kind = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[adamw]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, **kind)
    run = torch.compile(model) if mode == "compile" else model
    sequence = torch.randint(0, o.vocab, (o.batch, o.context + 1))
    tokens, targets = sequence[:, :-1].contiguous(), sequence[:, 1:].contiguous()

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            loss = run(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()
    return step


def seconds_of_others():
    """CPU seconds spent so far by all other processes (Linux). OpenMP's threads spin while they wait, so a second busy
    program on the same cores makes a step many times slower: such a timing means nothing."""
    try:
        ticks = [int(x) for x in open("/proc/stat").readline().split()[1:4]]       # user, nice, system
    except OSError:
        return math.nan
    return sum(ticks) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:2])


def measure(step, warmup, seconds):
    """-> median, fastest and CPU ms per step, steps, loss, % of one core used by other programs. The first steps allocate,
    and compile. CPU time is all threads' (spinning included): with one thread it hardly depends on what else runs."""
    for _ in range(warmup):
        step()
    times, cpu, begin, others = [], time.process_time(), time.perf_counter(), seconds_of_others()
    while len(times) < 5 or time.perf_counter() < begin + seconds:
        start = time.perf_counter()
        loss = step()
        times.append(1e3 * (time.perf_counter() - start))
    cpu = 1e3 * (time.process_time() - cpu) / len(times)
    others = 100 * (seconds_of_others() - others) / (time.perf_counter() - begin)
    if not math.isfinite(loss):
        raise SystemExit("peer_torch: the loss is not finite: the timing means nothing")
    return statistics.median(times), min(times), cpu, len(times), loss, others


def blas_name():
    if torch.backends.mkl.is_available():
        return "mkl"
    try:
        loaded = open("/proc/self/maps").read()
    except OSError:
        return "unknown"
    return next((name for name in ("openblas", "blis", "mkl") if name in loaded), "reference")


def settings():
    """What this PyTorch has: (attention, AdamW implementation, eager or compiled, fp32 or bf16 autocast)."""
    newer = int(torch.__version__.split(".")[0]) >= 2
    attentions = ["masked"] + (["sdpa"] if hasattr(F, "scaled_dot_product_attention") else [])
    adamws = ["loop", "foreach"] + (["fused"] if newer else [])
    modes = ["eager"] + (["compile"] if newer else [])
    eager = [(a, w, "eager", "fp32") for a in attentions for w in adamws]
    return eager + [(a, adamws[-1], m, d) for d in ("fp32", "bf16") for m in modes for a in attentions if (m, d) != ("eager", "fp32")]


def main():
    options = argparse.ArgumentParser(description="Time of one training step in PyTorch")
    for name, default in (("layers", 4), ("width", 128), ("heads", 4), ("context", 128), ("vocab", 256), ("batch", 16)):
        options.add_argument("--" + name, type=int, default=default)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--warmup", type=int, default=3, help="steps before the clock starts")
    options.add_argument("--seconds", type=float, default=10, help="per setting")
    options.add_argument("--only", default="", help="one setting, e.g. masked,foreach,eager,fp32; default: all, best last")
    o = options.parse_args()
    if o.width % o.heads:
        options.error(f"--width {o.width} is not a multiple of --heads {o.heads}")
    torch.set_num_threads(o.threads)
    version = re.match(r"\d+\.\d+\.\d+", torch.__version__).group()
    chosen = [s for s in settings() if o.only in ("", ",".join(s))]
    if not chosen:
        options.error(f"--only {o.only}: this PyTorch has " + "  ".join(",".join(s) for s in settings()))
    best = None
    for setting in chosen:
        median, fastest, cpu, n, loss, others = measure(make_step(o, *setting), o.warmup, o.seconds)
        print(f"{','.join(setting):27} median {median:9.2f} ms  min {fastest:9.2f} ms  cpu {cpu:9.2f} ms  steps {n:4d}  "
              f"loss {loss:.4f}  other programs {others:.0f}% of a core", flush=True)
        if best is None or median < best[0]:
            best = median, fastest, others, setting
    print(f"peer torch-{version} tokens_per_s {1e3 * o.batch * o.context / best[0]:.0f} ms {best[0]:.2f} "
          f"min_ms {best[1]:.2f} setting {','.join(best[3])} threads {o.threads} blas {blas_name()} "
          f"others_percent {best[2]:.0f}")


if __name__ == "__main__":
    main()
