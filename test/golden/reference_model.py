"""The model in PyTorch, float64, written for reading: all attention variants, positions, norms and MLPs, loss, gradients, AdamW.

A second, independent implementation of what the engine computes: written from the equations below, not from the C++.
make_golden.py checks it and writes the reference values that the engine is tested against.

Sources: GPT-2 [Radford et al. 2019]; grouped-query [2305.13245]; grouped-tied [2505.21487]; Query-Value and QV-Ka [2603.15665]; MLA
[2405.04434, section 2.1]; RoPE [2104.09864]; ALiBi [2108.12409]; KERPLE-log [2205.09921]; RMSNorm [1910.07467];
SwiGLU [2002.05202]; AdamW [1711.05101].
Not for: training, speed, or any use by the engine itself, which needs no Python.
"""
import math
import zlib
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

LAYERNORM_EPS, RMSNORM_EPS, ROPE_THETA = 1e-5, 1e-6, 10000.0
LR, BETA1, BETA2, EPS, WEIGHT_DECAY, CLIP, POWER_MIN = 1e-3, 0.9, 0.95, 1e-8, 0.1, 1.0, 0.01


def config(attn, pos, **changes):
    """Sizes are awkward on purpose: NH*HS != C, V and T odd, d_ctx != 2 HS."""
    c = dict(attn=attn, pos=pos, qv_rope="key", B=2, T=9, V=29, L=2, C=12, NH=3, NKV=0, HS=8, F=48, weight_std=0.3,
             qvka_dctx=0, qvka_tied=0, mla_dc=0, mla_dr=0, mla_dcq=0, norm="layernorm", mlp="gelu")
    if attn == "gqa":
        c.update(NH=4, NKV=2, HS=6)
    if attn == "gta":
        c.update(NH=4, NKV=2, HS=8)
    if attn == "mqa":
        c.update(NKV=1)
    if attn == "qv_ka":
        c.update(qvka_dctx=10)
    if attn == "mla":
        c.update(mla_dc=10, mla_dr=4, mla_dcq=14)
    c.update(changes)
    c["NKV"] = c["NKV"] or c["NH"]
    c["Vp"] = (c["V"] + 127) // 128 * 128
    return SimpleNamespace(**c)


# ---- parameters: name -> shape; weights are (out, in) ----------------------------------------------------------------

def attention_shapes(c):
    q_rows, kv_rows = c.NH * c.HS, c.NKV * c.HS
    out = {"o.weight": (c.C, q_rows), "o.bias": (c.C,)}
    q = {"q.weight": (q_rows, c.C), "q.bias": (q_rows,)}
    v = {"v.weight": (kv_rows, c.C), "v.bias": (kv_rows,)}
    if c.attn in ("qkv", "gqa", "mqa"):
        return {**q, "k.weight": (kv_rows, c.C), "k.bias": (kv_rows,), **v, **out}
    if c.attn in ("qv", "qk"):
        return {**q, **v, **out}
    if c.attn == "gta":
        return {**q, **v, "kr.weight": (c.HS // 2, c.C), **out}
    if c.attn == "one":
        return {**v, **out}
    if c.attn == "qv_ka":
        ctx = {"ctx.weight": (c.qvka_dctx, c.C)} if c.qvka_dctx else {}
        per_head = (c.HS, c.qvka_dctx + c.HS)
        return {**q, **v, **ctx, "k.weight": per_head if c.qvka_tied else (c.NKV,) + per_head, **out}
    if c.attn == "mla":
        rows = c.NH * (c.HS + c.mla_dr)
        query = {"dq.weight": (c.mla_dcq, c.C), "q_norm.weight": (c.mla_dcq,), "uq.weight": (rows, c.mla_dcq)}
        rotary = {"kr.weight": (c.mla_dr, c.C)} if c.mla_dr else {}
        return {**(query if c.mla_dcq else {"q.weight": (rows, c.C)}), "dkv.weight": (c.mla_dc, c.C), **rotary,
                "kv_norm.weight": (c.mla_dc,), "uk.weight": (q_rows, c.mla_dc), "uv.weight": (q_rows, c.mla_dc), **out}
    raise ValueError(c.attn)


def norm_shapes(c, name):
    return {name + ".weight": (c.C,), **({name + ".bias": (c.C,)} if c.norm == "layernorm" else {})}


def mlp_shapes(c):
    if c.mlp == "swiglu":
        return {"mlp.gate.weight": (c.F, c.C), "mlp.up.weight": (c.F, c.C), "mlp.down.weight": (c.C, c.F)}
    return {"mlp.fc.weight": (c.F, c.C), "mlp.fc.bias": (c.F,), "mlp.proj.weight": (c.C, c.F), "mlp.proj.bias": (c.C,)}


def parameter_shapes(c):
    shapes = {"wte.weight": (c.Vp, c.C)}
    if c.pos == "learned":
        shapes["wpe.weight"] = (c.T, c.C)
    for l in range(c.L):
        block = norm_shapes(c, "ln_1")
        block.update({"attn." + name: shape for name, shape in attention_shapes(c).items()})
        if c.pos == "power":
            block.update({"attn.pos_p": (c.NH,), "attn.pos_a": (c.NH,)})
        block.update({**norm_shapes(c, "ln_2"), **mlp_shapes(c)})
        shapes.update({f"h.{l}.{name}": shape for name, shape in block.items()})
    return {**shapes, **norm_shapes(c, "ln_f")}


def random_state(case, name):
    """A stream per tensor (RandomState: its numbers never change between numpy versions)."""
    return np.random.RandomState(zlib.crc32(f"{case}/{name}".encode()))


def initial_parameters(case, c):
    """Larger than a real initialisation, so that softmax, GELU and norms are far from linear. Rounded to float32, so
    that a float32 engine starts from exactly the same numbers."""
    params = {}
    for name, shape in parameter_shapes(c).items():
        r, last = random_state(case, name), name.split(".")[-1]
        if last == "pos_p":
            x = r.uniform(0.2, 2.0, shape)
            x[0] = POWER_MIN + 0.004            # close to the clamp: some cases run into it within ten steps
        elif last == "pos_a":
            x = r.uniform(0.2, 1.0, shape)
            x[1] = POWER_MIN + 0.004
        elif last == "bias":
            x = 0.2 * r.randn(*shape)
        elif len(shape) == 1:                   # gains of LayerNorm and RMSNorm
            x = 1 + 0.2 * r.randn(*shape)
        else:
            x = c.weight_std * r.randn(*shape)
        if name == "wte.weight":
            x[c.V:] = 0                         # padding: never looked up, never given probability
        params[name] = torch.tensor(x.astype(np.float32).astype(np.float64), requires_grad=True)
    return params


# ---- the model -------------------------------------------------------------------------------------------------------

def rope(x, sign=1):
    """x (B,T,heads,d). Rotates the pair (i, i + d/2) by t * theta^(-2i/d); sign -1 rotates back."""
    T, d = x.shape[1], x.shape[3]
    frequency = ROPE_THETA ** (-2 * torch.arange(d // 2, dtype=x.dtype) / d)
    angle = sign * torch.arange(T, dtype=x.dtype)[:, None] * frequency
    cos, sin = angle.cos()[None, :, None, :], angle.sin()[None, :, None, :]
    a, b = x[..., :d // 2], x[..., d // 2:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def rmsnorm(x, gain):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + RMSNORM_EPS) * gain


def norm(c, p, name, x):
    if c.norm == "rmsnorm":
        return rmsnorm(x, p[name + ".weight"])
    return F.layer_norm(x, (c.C,), p[name + ".weight"], p[name + ".bias"], LAYERNORM_EPS)


def mlp(c, p, x):
    if c.mlp == "swiglu":
        return (F.silu(x @ p["mlp.gate.weight"].T) * (x @ p["mlp.up.weight"].T)) @ p["mlp.down.weight"].T
    h = F.gelu(x @ p["mlp.fc.weight"].T + p["mlp.fc.bias"], approximate="tanh")
    return h @ p["mlp.proj.weight"].T + p["mlp.proj.bias"]


def alibi_slopes(NH):
    """Press et al.: 2^(-8/n), 2^(-16/n), ... for n a power of two; otherwise those of the next lower power n, then
    every other one of 2n."""
    def geometric(n):
        return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]
    n = 2 ** int(math.floor(math.log2(NH)))
    return geometric(n) if n == NH else geometric(n) + geometric(2 * n)[0::2][:NH - n]


def position_bias(c, p, T):
    """(NH,T,T) added to the scaled scores; distance d = i - j."""
    i, j = torch.arange(T)[:, None], torch.arange(T)[None, :]
    d = (i - j).clamp(min=0).double()
    if c.pos == "alibi":
        return -torch.tensor(alibi_slopes(c.NH), dtype=torch.float64)[:, None, None] * d
    if c.pos == "power":
        return -p["pos_p"][:, None, None] * torch.log(1 + p["pos_a"][:, None, None] * d)
    return torch.zeros(c.NH, T, T, dtype=torch.float64)


def attention_probabilities(c, p, q, k):
    """q (B,T,NH,d), k (B,T,NH,d) -> P (B,NH,T,T)."""
    T, d = q.shape[1], q.shape[3]
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(d) + position_bias(c, p, T)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)


def queries_keys_values(c, p, x):
    """x (B,T,C) -> q (B,T,NH,d_qk), k (B,T,NKV,d_qk), v (B,T,NKV,HS), rotations included."""
    B, T, _ = x.shape

    def heads(y, n):
        return y.reshape(B, T, n, -1)

    if c.attn == "mla":
        c_q = rmsnorm(x @ p["dq.weight"].T, p["q_norm.weight"]) if c.mla_dcq else x
        q = heads(c_q @ (p["uq.weight"] if c.mla_dcq else p["q.weight"]).T, c.NH)      # per head [content ; rotary]
        c_kv = rmsnorm(x @ p["dkv.weight"].T, p["kv_norm.weight"])
        k, v = heads(c_kv @ p["uk.weight"].T, c.NH), heads(c_kv @ p["uv.weight"].T, c.NH)
        if c.mla_dr:                                                                    # decoupled RoPE, whatever pos
            q = torch.cat([q[..., :c.HS], rope(q[..., c.HS:])], dim=-1)
            k_rotary = rope(heads(x @ p["kr.weight"].T, 1)).expand(-1, -1, c.NH, -1)    # one head, shared by all
            k = torch.cat([k, k_rotary], dim=-1)
        return q, k, v

    if c.attn == "one":                                                                 # one tensor for all three
        v = heads(x @ p["v.weight"].T + p["v.bias"], c.NH)
        k = rope(v) if c.pos == "rope" else v
        return k, k, v
    q = heads(x @ p["q.weight"].T + p["q.bias"], c.NH)
    v = heads(x @ p["v.weight"].T + p["v.bias"], c.NKV)
    if c.attn == "gta":                                     # half of the value is half of the key; the rest is one rotated head
        half = c.HS // 2
        turn = rope if c.pos == "rope" else (lambda y: y)
        k_shared = turn(heads(x @ p["kr.weight"].T, 1)).expand(-1, -1, c.NKV, -1)
        return torch.cat([q[..., :half], turn(q[..., half:])], dim=-1), torch.cat([v[..., :half], k_shared], dim=-1), v
    if c.attn == "qv":
        k = v
    elif c.attn == "qk":
        k = q
    elif c.attn == "qv_ka":
        source = v
        if c.qvka_dctx:
            G = heads(x @ p["ctx.weight"].T, 1).expand(-1, -1, c.NKV, -1)               # one G, shared by all heads
            source = torch.cat([G, v], dim=-1)
        k = torch.einsum("bthc,dc->bthd" if c.qvka_tied else "bthc,hdc->bthd", source, p["k.weight"])
    else:
        k = heads(x @ p["k.weight"].T + p["k.bias"], c.NKV)
    if c.pos == "rope":
        q, k = rope(q), rope(k)
        if c.attn == "qv" and c.qv_rope == "vo":
            v = k
    return q, k, v


def attention(c, p, x):
    q, k, v = queries_keys_values(c, p, x)
    kv_head = [h * k.shape[2] // c.NH for h in range(c.NH)]
    P = attention_probabilities(c, p, q, k[:, :, kv_head])
    o = torch.einsum("bhij,bjhd->bihd", P, v[:, :, kv_head])
    if c.attn == "qv" and c.pos == "rope" and c.qv_rope == "vo":
        o = rope(o, -1)                         # back by the query's angle: only i - j is left
    return o.flatten(2) @ p["o.weight"].T + p["o.bias"]


def sinusoidal_table(T, C):
    angle = torch.arange(T, dtype=torch.float64)[:, None] / 10000.0 ** (torch.arange(0, C, 2, dtype=torch.float64) / C)
    # column 2i sin, 2i + 1 cos; as large as embeddings of standard deviation 0.02
    return 0.02 * math.sqrt(2) * torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def forward(c, params, tokens, targets):
    """-> logits (B,T,Vp), with -inf in the padding, and the mean loss in nats"""
    T = tokens.shape[1]
    x = params["wte.weight"][tokens]
    if c.pos == "learned":
        x = x + params["wpe.weight"][:T]
    if c.pos == "sinusoidal":
        x = x + sinusoidal_table(T, c.C)
    for l in range(c.L):
        prefix = f"h.{l}."
        p = {name[len(prefix):]: t for name, t in params.items() if name.startswith(prefix)}
        p_attention = {name[len("attn."):]: t for name, t in p.items() if name.startswith("attn.")}
        x = x + attention(c, p_attention, norm(c, p, "ln_1", x))
        x = x + mlp(c, p, norm(c, p, "ln_2", x))
    x = norm(c, params, "ln_f", x)
    logits = x @ params["wte.weight"].T
    logits = logits.masked_fill(torch.arange(c.Vp) >= c.V, -math.inf)
    return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


# ---- the optimizer ---------------------------------------------------------------------------------------------------

def gradients(c, params, tokens, targets):
    logits, loss = forward(c, params, tokens, targets)
    return logits.detach(), loss.item(), dict(zip(params, torch.autograd.grad(loss, list(params.values()))))


def global_norm(grads):
    return math.sqrt(sum((g * g).sum().item() for g in grads.values()))


def adamw_step(params, grads, m, v, step):
    """step counts from 1. Decoupled decay on matrices only [Loshchilov & Hutter, algorithm 2]."""
    scale = min(1.0, CLIP / global_norm(grads))
    with torch.no_grad():
        for name, w in params.items():
            g = grads[name] * scale
            m[name] = BETA1 * m[name] + (1 - BETA1) * g
            v[name] = BETA2 * v[name] + (1 - BETA2) * g * g
            m_hat, v_hat = m[name] / (1 - BETA1 ** step), v[name] / (1 - BETA2 ** step)
            decay = WEIGHT_DECAY if w.dim() >= 2 else 0.0
            w -= LR * (m_hat / (v_hat.sqrt() + EPS) + decay * w)
            if name.endswith(("pos_p", "pos_a")):
                w.clamp_(min=POWER_MIN)
