#!/usr/bin/env python3
"""How far off a plain bf16 implementation's gradients are: the yardstick of test/test_model_bf16.cpp.

The reference model is run with the result of every operation, forward and backward, rounded to bfloat16 (8 significant bits); sums
inside an operation are exact. Up or down is drawn by chance, with the probabilities that make it right on average, so that several
runs show how large the error typically is: per tensor, the root mean square over SEEDS runs of |gradient - exact gradient|_2.

    python3 test/golden/make_bf16_errors.py        writes bf16_errors.txt: case, tensor (or "loss"), error

Not for: the engine's build or tests, which read the file. Needs torch >= 1.13, about a minute.
"""
import os

import torch
from torch.overrides import TorchFunctionMode

from make_golden import all_cases, batch
from reference_model import gradients, initial_parameters

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


def main():
    torch.set_num_threads(1)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bf16_errors.txt")
    with open(path, "w") as f:
        f.write("# made by make_bf16_errors.py: case, tensor, typical error of a plain bf16 implementation (2-norm)\n")
        for case, c in all_cases().items():
            params, (tokens, targets) = initial_parameters(case, c), batch(case, c)
            _, exact_loss, exact = gradients(c, params, tokens, targets)
            squares = {name: 0.0 for name in ("loss", *params)}
            for seed in range(SEEDS):
                torch.manual_seed(seed)
                narrow = {name: rounded(p).requires_grad_() for name, p in params.items()}
                with RoundEverything():
                    _, loss, grads = gradients(c, narrow, tokens, targets)
                squares["loss"] += (loss - exact_loss) ** 2 / SEEDS
                for name in params:
                    squares[name] += (grads[name] - exact[name]).square().sum().item() / SEEDS
            for name, square in squares.items():
                f.write(f"{case} {name} {square ** 0.5:.3g}\n")
            whole = sum(s for n, s in squares.items() if n != "loss") ** 0.5 / sum(g.square().sum().item() for g in exact.values()) ** 0.5
            print(f"{case:18} the whole gradient is off by {whole:.4f} of its size")


if __name__ == "__main__":
    main()
