#!/usr/bin/env python3
"""Writes the reference values: one .safetensors file per attention variant x position, from reference_model.py.

Before writing, the reference itself is checked: its gradients against finite differences, its AdamW against
torch.optim.AdamW, causality, and the identities between variants. README.md lists what a file holds.

    python3 test/golden/make_golden.py            self-checks, then writes the files (needs torch >= 1.12 and numpy)
    python3 test/golden/make_golden.py --check    self-checks, then compares with the files, writes nothing

Not for: the engine's own build or tests, which read the files and need no Python.
"""
import argparse
import json
import math
import os
import struct
import sys

import numpy as np
import torch

from reference_model import (BETA1, BETA2, CLIP, EPS, LR, WEIGHT_DECAY, adamw_step, alibi_slopes, attention_shapes, config,
                             forward, global_norm, gradients, initial_parameters, queries_keys_values, random_state, rope)

STEPS = 10
# Final weights only where they say most (every kind of parameter, the clamp); `losses` covers the optimizer everywhere.
WITH_AFTER = ("qkv-learned", "qkv-power", "qv_ka-power", "mla-power", "qv-rmsnorm-swiglu-rope")


def batch(case, c):
    sequence = random_state(case, "tokens").randint(0, c.V, (c.B, c.T + 1))
    return torch.tensor(sequence[:, :-1].copy()), torch.tensor(sequence[:, 1:].copy())


def run_case(case, c, with_after):
    """-> {tensor name: numpy array} of one file"""
    params, (tokens, targets) = initial_parameters(case, c), batch(case, c)
    out = {"param." + name: t.detach().numpy().copy() for name, t in params.items()}
    logits, loss, grads = gradients(c, params, tokens, targets)
    out.update({"grad." + name: g.numpy() for name, g in grads.items()})
    out.update(tokens=tokens.numpy(), targets=targets.numpy(), logits=logits[..., :c.V].numpy().copy(),
               loss=np.array([loss]), grad_norm=np.array([global_norm(grads)]))
    losses = [loss]
    m, v = ({name: torch.zeros_like(t) for name, t in params.items()} for _ in range(2))
    for step in range(1, STEPS + 1):
        adamw_step(params, grads, m, v, step)
        _, loss, grads = gradients(c, params, tokens, targets)
        losses.append(loss)
    out["losses"] = np.array(losses)
    if with_after:
        out.update({"after." + name: t.detach().numpy().astype(np.float32) for name, t in params.items()})
    return out


# ---- safetensors -----------------------------------------------------------------------------------------------------

DTYPES = {"float64": "F64", "float32": "F32", "int64": "I64"}


def safetensors_bytes(tensors, metadata):
    """8 bytes header length, JSON header padded with spaces to 8, data. Widest types first keeps all data aligned."""
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header, data = {"__metadata__": metadata}, b""
    for name in order:
        raw = np.ascontiguousarray(tensors[name]).tobytes()
        header[name] = {"dtype": DTYPES[str(tensors[name].dtype)], "shape": list(tensors[name].shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def safetensors_read(path):
    raw = open(path, "rb").read()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:start])
    header.pop("__metadata__")
    types = {short: np.dtype(name) for name, short in DTYPES.items()}
    return {name: np.frombuffer(raw[start + t["data_offsets"][0]:start + t["data_offsets"][1]],
                                types[t["dtype"]]).reshape(t["shape"]) for name, t in header.items()}


# ---- self-checks -----------------------------------------------------------------------------------------------------

def close(what, a, b, tolerance):
    a, b = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (a, b))
    error = (a - b).abs().max().item()
    if not error <= tolerance:
        sys.exit(f"make_golden: {what}: differ by {error:.3e}, allowed {tolerance:.1e}")
    return error


def check_finite_differences(case, c):
    """Each tensor's gradient along one random direction, against (loss(w + h u) - loss(w - h u)) / 2h. At h = 1e-5 the
    truncation (h^2) and the rounding (1e-16 / h) are both about 1e-10."""
    params, (tokens, targets) = initial_parameters(case, c), batch(case, c)
    _, _, grads = gradients(c, params, tokens, targets)
    h, worst = 1e-5, 0.0
    for name, w in params.items():
        u = torch.tensor(random_state(case, "direction " + name).randn(*w.shape))
        u = u / u.norm()
        with torch.no_grad():
            plus = forward(c, {**params, name: w + h * u}, tokens, targets)[1].item()
            minus = forward(c, {**params, name: w - h * u}, tokens, targets)[1].item()
        exact = (grads[name] * u).sum().item()
        worst = max(worst, close(f"{case}: gradient of {name}", exact, (plus - minus) / (2 * h), 1e-8))
    return worst


def check_causality(case, c):
    """Another token at position t changes nothing before t and something at t."""
    params, (tokens, targets) = initial_parameters(case, c), batch(case, c)
    t, other = 5, tokens.clone()
    other[:, t] = (other[:, t] + 1) % c.V
    a, b = (forward(c, params, x, targets)[0][..., :c.V].detach() for x in (tokens, other))
    close(f"{case}: causality", a[:, :t], b[:, :t], 1e-13)      # not 0: the BLAS sums by blocks of rows
    if (a[:, t] - b[:, t]).abs().max() < 1e-3:
        sys.exit(f"make_golden: {case}: a token does not reach its own logits")


def check_identities():
    for pos in ("learned", "rope", "alibi"):
        # GQA with one kv head per query head is QKV
        c = config("qkv", pos)
        params, (tokens, targets) = initial_parameters("identity", c), batch("identity", c)
        expected = forward(c, params, tokens, targets)[1]
        grouped = config("gqa", pos, NH=3, NKV=3, HS=8)
        close(f"gqa(NKV=NH) = qkv, {pos}", forward(grouped, params, tokens, targets)[1], expected, 0)
        # MQA is GQA whose groups all hold the same key and value
        one = config("mqa", pos)
        p = initial_parameters("identity", one)
        repeated = {n: torch.cat([t] * 3) if n.split(".")[-2] in ("k", "v") else t for n, t in p.items()}
        close(f"mqa = qkv with repeated heads, {pos}", forward(one, p, tokens, targets)[1],
              forward(c, repeated, tokens, targets)[1], 1e-14)
        # QV-Ka with W_K = [0 ; I] is QV, whatever the context
        c, ka = config("qv", pos), config("qv_ka", pos)
        params, extra = initial_parameters("identity", c), initial_parameters("identity", ka)
        for l in range(c.L):
            identity = torch.cat([torch.zeros(ka.HS, ka.qvka_dctx), torch.eye(ka.HS)], dim=1).double()
            extra[f"h.{l}.attn.k.weight"] = identity.expand(ka.NKV, -1, -1)
        close(f"qv_ka(W_K=[0;I]) = qv, {pos}", forward(ka, {**extra, **params}, tokens, targets)[1],
              forward(c, params, tokens, targets)[1], 1e-14)
    # S_h = Q_h A_h^T G^T + Q_h B_h^T V_h^T  with W_K,h = [A_h ; B_h]
    c = config("qv_ka", "none")
    p = {n: torch.tensor(random_state("identity", n).randn(*s)) for n, s in attention_shapes(c).items()}
    x = torch.tensor(random_state("identity", "x").randn(c.B, c.T, c.C))
    q, k, v = queries_keys_values(c, p, x)
    G, A, B = x @ p["ctx.weight"].T, p["k.weight"][:, :, :c.qvka_dctx], p["k.weight"][:, :, c.qvka_dctx:]
    split = torch.einsum("bihd,hdc,bjc->bhij", q, A, G) + torch.einsum("bihd,hde,bjhe->bhij", q, B, v)
    close("qv_ka scores split into context and value", torch.einsum("bihd,bjhd->bhij", q, k), split, 1e-11)
    # RoPE: R_i q . R_j k depends on i - j only
    same = torch.tensor(random_state("identity", "rope").randn(2, 1, 1, 1, 6)).expand(-1, 1, 9, 1, 6)
    S = torch.einsum("bihd,bjhd->ij", rope(same[0]), rope(same[1]))
    close("rope is relative", S[1:, 1:], S[:-1, :-1], 1e-12)
    slopes = [2.0 ** -i for i in range(1, 9)] + [2.0 ** -(i + 0.5) for i in range(4)]
    close("alibi slopes of 12 heads", alibi_slopes(12), slopes, 0)


def check_adamw():
    """The update above against torch.optim.AdamW, ten steps of an unclipped and of a clipped case."""
    c = config("qkv", "learned")
    params, (tokens, targets) = initial_parameters("adamw", c), batch("adamw", c)
    other = {name: t.detach().clone().requires_grad_() for name, t in params.items()}
    groups = [{"params": [t for t in other.values() if t.dim() >= 2], "weight_decay": WEIGHT_DECAY},
              {"params": [t for t in other.values() if t.dim() < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(BETA1, BETA2), eps=EPS)
    m, v = ({name: torch.zeros_like(t) for name, t in params.items()} for _ in range(2))
    for step in range(1, STEPS + 1):
        size = 0.01 if step % 2 else 1.0
        _, _, grads = gradients(c, params, tokens, targets)
        adamw_step(params, {name: size * g for name, g in grads.items()}, m, v, step)
        _, _, grads = gradients(c, other, tokens, targets)
        scale = min(1.0, CLIP / (size * global_norm(grads)))
        for name, t in other.items():
            t.grad = grads[name] * size * scale
        optimizer.step()
    for name in params:
        # k.bias has gradient zero (it shifts a row of scores by a constant), and Adam divides its rounding by eps
        close(f"adamw: {name}", params[name].detach(), other[name].detach(), 1e-11 if name.endswith("k.bias") else 1e-14)


# ---- the cases -------------------------------------------------------------------------------------------------------

def all_cases():
    cases = {f"{attn}-{pos}": config(attn, pos) for attn in ("qkv", "gqa", "mqa", "qv", "qv_ka", "mla", "gta")
             for pos in ("learned", "rope", "alibi", "power")}
    cases.update({f"{attn}-{pos}": config(attn, pos) for attn in ("qk", "one") for pos in ("learned", "rope", "power")})
    grouped = dict(NH=4, NKV=2, HS=6)
    cases.update({
        "qkv-sinusoidal": config("qkv", "sinusoidal", weight_std=0.06),     # gradient norm below CLIP: not clipped
        "qkv-none": config("qkv", "none"),
        "qv-rope-vo": config("qv", "rope", qv_rope="vo"),
        "qv-kv2-rope": config("qv", "rope", **grouped),
        "qv-kv2-rope-vo": config("qv", "rope", qv_rope="vo", **grouped),
        "qv_ka-kv2-rope": config("qv_ka", "rope", **grouped),
        "qv_ka-tied-power": config("qv_ka", "power", qvka_tied=1),
        "qv_ka-dctx0-rope": config("qv_ka", "rope", qvka_dctx=0),
        "mla-dcq0-rope": config("mla", "rope", mla_dcq=0),
        "mla-dr0-learned": config("mla", "learned", mla_dr=0),
        "qv-rmsnorm-swiglu-rope": config("qv", "rope", norm="rmsnorm", mlp="swiglu", F=20),
        "qv-rmsnorm-swiglu-learned": config("qv", "learned", norm="rmsnorm", mlp="swiglu", F=33),
    })
    return cases


def file_metadata(c):
    """The configuration as strings; the default norm and MLP are not written."""
    return {k: str(v) for k, v in vars(c).items()
            if k not in ("Vp", "weight_std") and (k, v) not in (("norm", "layernorm"), ("mlp", "gelu"))}


def main():
    options = argparse.ArgumentParser(description="Reference values from PyTorch in float64")
    options.add_argument("--check", action="store_true", help="compare with the files, write nothing")
    options.add_argument("--dir", default=os.path.dirname(os.path.abspath(__file__)), help="folder of the files")
    o = options.parse_args()
    torch.set_num_threads(1)                    # one order of summation: the same bytes every time
    check_identities()
    check_adamw()
    total = 0
    for case, c in all_cases().items():
        check_causality(case, c)
        worst = check_finite_differences(case, c)
        tensors = run_case(case, c, with_after=case in WITH_AFTER)
        path, content = os.path.join(o.dir, case + ".safetensors"), safetensors_bytes(tensors, file_metadata(c))
        same = ""
        if o.check:
            stored = safetensors_read(path)
            if sorted(stored) != sorted(tensors):
                sys.exit(f"make_golden: {path}: other tensors than expected; run without --check")
            for name, t in tensors.items():
                close(f"{path}: {name}", t, stored[name].copy(), 1e-7 if t.dtype == np.float32 else 1e-10)
            same = ", same bytes" if content == open(path, "rb").read() else ", not the same bytes (another BLAS or CPU?)"
        else:
            with open(path, "wb") as f:
                f.write(content)
        total += len(content)
        print(f"{case:18} loss {tensors['losses'][0]:.6f} -> {tensors['losses'][-1]:.6f}  norm {tensors['grad_norm'][0]:.3f}"
              f"  finite differences {worst:.1e}  {len(content)} bytes{same}")
    print(f"{len(all_cases())} files, {total} bytes")


if __name__ == "__main__":
    main()
