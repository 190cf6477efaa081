"""A GPT trained by qv.cu, for transformers: AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).

One readable file for every attention variant (qkv, mqa, gqa, mla, qv, qv_ka, gta) and position of the engine; the weights keep the
engine's names. Written for evaluation, not for speed: there is no cache, generate() computes the whole text for every token.
Equations and sources: attention/*.h of qv.cu.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

LAYERNORM_EPS, RMSNORM_EPS = 1e-5, 1e-6
SINUSOIDAL_SCALE = 0.02 * math.sqrt(2)           # the embedding's own scale


class QvcuConfig(PretrainedConfig):
    model_type = "qvcu"

    def __init__(self, attn="qkv", pos="rope", vocab_size=256, n_positions=128, n_layer=4, hidden_size=128, n_head=4,
                 n_kv_head=4, head_dim=32, mlp_width=512, rope_theta=10000.0, qv_rope="key",
                 qvka_dctx=0, qvka_tied=False, mla_dc=0, mla_dr=0, mla_dcq=0, **kwargs):
        self.attn, self.pos, self.vocab_size, self.n_positions, self.n_layer = attn, pos, vocab_size, n_positions, n_layer
        self.hidden_size, self.n_head, self.n_kv_head, self.head_dim, self.mlp_width = hidden_size, n_head, n_kv_head, head_dim, mlp_width
        self.rope_theta, self.qv_rope, self.qvka_dctx, self.qvka_tied = rope_theta, qv_rope, qvka_dctx, qvka_tied
        self.mla_dc, self.mla_dr, self.mla_dcq = mla_dc, mla_dr, mla_dcq
        self.num_hidden_layers, self.num_attention_heads, self.max_position_embeddings = n_layer, n_head, n_positions
        kwargs.setdefault("use_cache", False)
        kwargs.setdefault("tie_word_embeddings", False)          # the head reads the embedding itself: there is no second tensor to tie
        super().__init__(**kwargs)
        self.use_cache = False


def rope(x, theta, sign=1):
    """x (B, T, heads, d): element i turns with element i + d/2 by t * theta^(-2i/d); sign -1 turns back."""
    T, d = x.shape[1], x.shape[3]
    frequency = theta ** (-2 * torch.arange(d // 2, dtype=torch.float64, device=x.device) / d)
    angle = sign * torch.arange(T, dtype=torch.float64, device=x.device)[:, None] * frequency
    cos, sin = angle.cos()[None, :, None, :].to(x.dtype), angle.sin()[None, :, None, :].to(x.dtype)
    a, b = x[..., :d // 2], x[..., d // 2:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def rmsnorm(x, gain):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + RMSNORM_EPS) * gain


def alibi_slopes(heads):
    n = 2 ** int(math.floor(math.log2(heads)))
    return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)] + [2.0 ** (-4.0 * (i + 1) / n) for i in range(0, 2 * n, 2)][:heads - n]


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        q, kv, C = c.n_head * c.head_dim, c.n_kv_head * c.head_dim, c.hidden_size
        if c.attn == "mla":
            if c.mla_dcq:
                self.dq = nn.Linear(C, c.mla_dcq, bias=False)
                self.q_norm = nn.Module()
                self.q_norm.weight = nn.Parameter(torch.ones(c.mla_dcq))
                self.uq = nn.Linear(c.mla_dcq, c.n_head * (c.head_dim + c.mla_dr), bias=False)
            else:
                self.q = nn.Linear(C, c.n_head * (c.head_dim + c.mla_dr), bias=False)
            self.dkv = nn.Linear(C, c.mla_dc, bias=False)
            self.kv_norm = nn.Module()
            self.kv_norm.weight = nn.Parameter(torch.ones(c.mla_dc))
            if c.mla_dr:
                self.kr = nn.Linear(C, c.mla_dr, bias=False)
            self.uk = nn.Linear(c.mla_dc, q, bias=False)
            self.uv = nn.Linear(c.mla_dc, q, bias=False)
        else:
            self.q = nn.Linear(C, q)
            self.v = nn.Linear(C, kv)
            if c.attn == "qv_ka":
                shape = (c.head_dim, c.qvka_dctx + c.head_dim)
                self.k = nn.Module()
                self.k.weight = nn.Parameter(torch.zeros(shape if c.qvka_tied else (c.n_kv_head,) + shape))
                if c.qvka_dctx:
                    self.ctx = nn.Linear(C, c.qvka_dctx, bias=False)
            elif c.attn == "gta":
                self.kr = nn.Linear(C, c.head_dim // 2, bias=False)
            elif c.attn != "qv":
                self.k = nn.Linear(C, kv)
        if c.pos == "power":
            self.pos_p = nn.Parameter(torch.ones(c.n_head))
            self.pos_a = nn.Parameter(torch.ones(c.n_head))
        self.o = nn.Linear(q, C)

    def queries_keys_values(self, x):
        c, (B, T, _) = self.c, x.shape

        def heads(y, n):
            return y.reshape(B, T, n, -1)

        if c.attn == "mla":
            q = heads(self.uq(rmsnorm(self.dq(x), self.q_norm.weight)) if c.mla_dcq else self.q(x), c.n_head)
            latent = rmsnorm(self.dkv(x), self.kv_norm.weight)
            k, v = heads(self.uk(latent), c.n_head), heads(self.uv(latent), c.n_head)
            if c.mla_dr:
                q = torch.cat([q[..., :c.head_dim], rope(q[..., c.head_dim:], c.rope_theta)], dim=-1)
                k = torch.cat([k, rope(heads(self.kr(x), 1), c.rope_theta).expand(-1, -1, c.n_head, -1)], dim=-1)
            return q, k, v
        q, v = heads(self.q(x), c.n_head), heads(self.v(x), c.n_kv_head)
        if c.attn == "gta":                      # half of the key is half of the value, the other half is shared by all heads and turns
            half, kr = c.head_dim // 2, heads(self.kr(x), 1)
            if c.pos == "rope":
                q, kr = torch.cat([q[..., :half], rope(q[..., half:], c.rope_theta)], dim=-1), rope(kr, c.rope_theta)
            return q, torch.cat([v[..., :half], kr.expand(-1, -1, c.n_kv_head, -1)], dim=-1), v
        if c.attn == "qv":
            k = v
        elif c.attn == "qv_ka":
            source = torch.cat([heads(self.ctx(x), 1).expand(-1, -1, c.n_kv_head, -1), v], dim=-1) if c.qvka_dctx else v
            k = torch.einsum("bthc,dc->bthd" if c.qvka_tied else "bthc,hdc->bthd", source, self.k.weight)
        else:
            k = heads(self.k(x), c.n_kv_head)
        if c.pos == "rope":
            q, k = rope(q, c.rope_theta), rope(k, c.rope_theta)
            if c.attn == "qv" and c.qv_rope == "vo":
                v = k
        return q, k, v

    def forward(self, x, mask):
        c, T = self.c, x.shape[1]
        q, k, v = self.queries_keys_values(x)
        kv_head = [h * k.shape[2] // c.n_head for h in range(c.n_head)]
        scores = torch.einsum("bihd,bjhd->bhij", q, k[:, :, kv_head]) / math.sqrt(q.shape[3])
        distance = (torch.arange(T, device=x.device)[:, None] - torch.arange(T, device=x.device)[None, :]).clamp(min=0).to(x.dtype)
        if c.pos == "alibi":
            scores = scores - torch.tensor(alibi_slopes(c.n_head), dtype=x.dtype, device=x.device)[:, None, None] * distance
        if c.pos == "power":
            scores = scores - self.pos_p[:, None, None] * torch.log(1 + self.pos_a[:, None, None] * distance)
        o = torch.einsum("bhij,bjhd->bihd", torch.softmax(scores + mask, dim=-1), v[:, :, kv_head])
        if c.attn == "qv" and c.pos == "rope" and c.qv_rope == "vo":
            o = rope(o, c.rope_theta, -1)
        return self.o(o.flatten(2))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc = nn.Linear(c.hidden_size, c.mlp_width)
        self.proj = nn.Linear(c.mlp_width, c.hidden_size)

    def forward(self, x):
        return self.proj(F.gelu(self.fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln_1 = nn.LayerNorm(c.hidden_size, eps=LAYERNORM_EPS)
        self.attn = Attention(c)
        self.ln_2 = nn.LayerNorm(c.hidden_size, eps=LAYERNORM_EPS)
        self.mlp = Mlp(c)

    def forward(self, x, mask):
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class QvcuForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = QvcuConfig
    _no_split_modules = ["Block"]

    def __init__(self, config):
        super().__init__(config)
        c = config
        self.wte = nn.Embedding(c.vocab_size, c.hidden_size)
        if c.pos == "learned":
            self.wpe = nn.Embedding(c.n_positions, c.hidden_size)
        self.h = nn.ModuleList(Block(c) for _ in range(c.n_layer))
        self.ln_f = nn.LayerNorm(c.hidden_size, eps=LAYERNORM_EPS)
        self.post_init()

    def _init_weights(self, module):
        pass                                                     # weights come from the folder

    def get_input_embeddings(self):
        return self.wte

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **kwargs):
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(self, input_ids, attention_mask=None, labels=None, **kwargs):
        """attention_mask 0: padding, on the right (positions count from the first token)."""
        c, (B, T) = self.config, input_ids.shape
        x = self.wte(input_ids)
        if c.pos == "learned":
            x = x + self.wpe.weight[:T]
        if c.pos == "sinusoidal":
            exponent = torch.arange(0, c.hidden_size, 2, dtype=torch.float64) / c.hidden_size
            angle = torch.arange(T, dtype=torch.float64)[:, None] / 10000.0 ** exponent
            x = x + SINUSOIDAL_SCALE * torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :c.hidden_size].to(x)
        mask = torch.full((T, T), -math.inf, dtype=x.dtype, device=x.device).triu(1)
        if attention_mask is not None and not bool(attention_mask.all()):
            padding = torch.zeros(B, 1, 1, T, dtype=x.dtype, device=x.device)
            mask = mask + padding.masked_fill(attention_mask[:, None, None, :T] == 0, torch.finfo(x.dtype).min)
        for block in self.h:
            x = block(x, mask)
        logits = self.ln_f(x) @ self.wte.weight.T
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()) if labels is not None else None
        return CausalLMOutput(loss=loss, logits=logits)
