#!/usr/bin/env python3
"""Reference values for bf16: models with head sizes that have tensor-core kernels, and how far off a plain bf16 implementation is.

Parameters are bf16 numbers to begin with, so that both sides start from the same. Loss and gradients are exact (float64). The yardstick:
the reference model with the result of every operation, forward and backward, rounded to bf16 (8 significant bits); sums inside an
operation are exact. Up or down is drawn by chance, with the probabilities that make it right on average, so that several runs show how
large the error typically is: the root mean square over SEEDS runs of |gradient - exact gradient|_2 (of the loss: of its error).

    python3 test/golden/make_golden_bf16.py        writes bf16/CASE.safetensors, read by test/model/test_model_bf16.cpp

A file: `param.NAME`, `grad.NAME` F32, `plain_error.NAME` F64 (1), `loss`, `plain_error.loss` F64 (1), `tokens`, `targets` I64; the
configuration as in make_golden.py's files. Not for: the engine's build or tests, which need no Python. Needs torch >= 1.13.
"""
import os

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from make_golden import batch, file_metadata, safetensors_bytes
from reference_model import config, gradients, initial_parameters

SEEDS = 8


def rounded(x):
    """To one of the two nearest bf16 numbers: the low 16 bits of a float32, compared with a random number, are carried or cut off."""
    bits = x.detach().float().view(torch.int32)
    finite = torch.isfinite(x)
    up = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32)
    kept = torch.where(finite, (bits + up) & -65536, bits)
    return kept.view(torch.float32).double()


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return rounded(x)

    @staticmethod
    def backward(ctx, gradient):
        return rounded(gradient)


class RoundEverything(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        counts = isinstance(out, torch.Tensor) and out.dtype == torch.float64 and out.requires_grad
        return Round.apply(out) if counts else out


def bf16_cases():
    """Head size 32, and 48 with 32 for MLA; 72 positions: beyond a tile of keys, no multiple of one."""
    sizes = dict(B=1, T=72, L=1, NH=2, HS=32)
    variants = {"qkv": {}, "gqa": dict(NH=4, NKV=2), "mqa": dict(NKV=1), "qv": {}, "qv_ka": {},
                "mla": dict(mla_dr=16), "gta": dict(NH=4, NKV=2)}
    cases = {f"{attn}-{pos}": config(attn, pos, **{**sizes, **own}) for attn, own in variants.items() for pos in ("rope", "power")}
    cases.update({
        "qkv-learned": config("qkv", "learned", **sizes),
        "qkv-alibi": config("qkv", "alibi", **sizes),
        "qv-kv2-rope-vo": config("qv", "rope", qv_rope="vo", **{**sizes, "NH": 4, "NKV": 2}),
        "mla-dr0-learned": config("mla", "learned", mla_dr=0, **sizes),
        "qv-rmsnorm-swiglu-rope": config("qv", "rope", norm="rmsnorm", mlp="swiglu", F=40, **sizes),
    })
    return cases


def main():
    torch.set_num_threads(1)
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bf16")
    os.makedirs(folder, exist_ok=True)
    for case, c in bf16_cases().items():
        params = {name: p.detach().bfloat16().double().requires_grad_() for name, p in initial_parameters("bf16/" + case, c).items()}
        tokens, targets = batch("bf16/" + case, c)
        _, exact_loss, exact = gradients(c, params, tokens, targets)
        squares = {name: 0.0 for name in ("loss", *params)}
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            with RoundEverything():
                _, loss, grads = gradients(c, params, tokens, targets)
            squares["loss"] += (loss - exact_loss) ** 2 / SEEDS
            for name in params:
                squares[name] += (grads[name] - exact[name]).square().sum().item() / SEEDS
        out = {"param." + name: p.detach().numpy().astype(np.float32) for name, p in params.items()}
        out.update({"grad." + name: g.numpy().astype(np.float32) for name, g in exact.items()})
        out.update({"plain_error." + name: np.array([square ** 0.5]) for name, square in squares.items()})
        out.update(loss=np.array([exact_loss]), tokens=tokens.numpy(), targets=targets.numpy())
        content = safetensors_bytes(out, file_metadata(c))
        with open(os.path.join(folder, case + ".safetensors"), "wb") as f:
            f.write(content)
        whole = sum(s for n, s in squares.items() if n != "loss") ** 0.5 / sum(g.square().sum().item() for g in exact.values()) ** 0.5
        print(f"{case:18} loss {exact_loss:.4f}, plain bf16 off by {squares['loss'] ** 0.5:.4f}; "
              f"its gradient by {whole:.4f} of its size; {len(content)} bytes")


if __name__ == "__main__":
    main()
