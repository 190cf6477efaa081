#!/usr/bin/env python3
"""PyTorch as the speed peer on a GPU: attention and the training step of GPT-2 124M at the shapes of bench-kernels and gpu-check.

bf16 autocast, torch.compile, scaled_dot_product_attention (whatever backend it picks), fused AdamW, clipping; written the way people
write it. Prints Markdown. `tiny`: small shapes on the CPU, to run this file without a GPU; its numbers mean nothing.

    python3 test/bench/peer_torch_gpu.py [tiny]

Not for: reference values (test/golden), the CPU (peer_torch.py), other variants than multi-head attention.
"""
import math
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

TINY = sys.argv[1:] == ["tiny"]
DEVICE = "cpu" if TINY else "cuda"
L, C, NH, T, V, B = (2, 64, 2, 64, 384, 2) if TINY else (12, 768, 12, 1024, 50304, 64)


def attention(q, k, v):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])          # PyTorch 1
    future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    return F.softmax(scores.masked_fill(future, -math.inf), dim=-1) @ v


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.o = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc, self.proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (y.view(b, t, NH, C // NH).transpose(1, 2) for y in self.qkv(self.ln_1(x)).split(C, dim=2))
        x = x + self.o(attention(q, k, v).transpose(1, 2).reshape(b, t, C))
        return x + self.proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
        self.blocks, self.ln_f = nn.ModuleList(Block() for _ in range(L)), nn.LayerNorm(C)
        for p in self.parameters():
            if p.dim() >= 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, V).float(), targets.view(-1))


def synchronize():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def median_s(work, warm_up=3, rounds=5, repeats=10):
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(rounds):
        synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        synchronize()
        times.append((time.perf_counter() - start) / repeats)
    return statistics.median(times)


def bench_attention(head_size):
    heads = max(1, C // head_size)
    shape = (B, heads, T, head_size)
    q, k, v = (torch.randn(shape, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    out = attention(q, k, v)
    dout = torch.randn_like(out)
    flops = B * heads * T * T / 2 * 4 * head_size
    forward = median_s(lambda: attention(q, k, v))
    backward = median_s(lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True))
    for name, work, seconds in (("forward", flops, forward), ("backward", 2.5 * flops, backward)):
        print(f"| attention {name} | B {B} T {T} NH {heads} HS {head_size} | {seconds * 1e6:.1f} | {work / seconds / 1e12:.1f} TFLOP/s |")


def bench_step():
    torch.manual_seed(1)
    model = GPT().to(DEVICE)
    fused = {"fused": True} if DEVICE == "cuda" else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, **fused)
    compiled = torch.compile(model) if hasattr(torch, "compile") and not TINY else model
    tokens, targets = (torch.randint(0, V - 47, (B, T), device=DEVICE) for _ in range(2))

    def step():
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            loss = compiled(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = median_s(step)
    memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if DEVICE == "cuda" else ""
    how = "compiled" if compiled is not model else "not compiled"
    print(f"| training step, {how}{memory} | L {L} C {C} NH {NH} T {T} B {B} | {seconds * 1e6:.0f} "
          f"| {B * T / seconds:.0f} tokens/s |")


if DEVICE == "cuda" and not torch.cuda.is_available():
    sys.exit("error: this PyTorch sees no GPU; install one built for CUDA, or give another with PYTHON=")
if TINY:
    torch.set_num_threads(1)             # threads that wait for each other spin: seconds become minutes on a busy machine
if DEVICE == "cuda":
    torch.backends.cuda.matmul.allow_tf32 = True
device_name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU, tiny shapes: the numbers mean nothing"
print(f"PyTorch {torch.__version__}, {device_name}\n")
print("| what | shape | time, us | rate |\n|---|---|---:|---:|")
for hs in (32,) if TINY else (64, 128):
    bench_attention(hs)
bench_step()
