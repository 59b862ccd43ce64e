"""A model that learns to be ternary: convert it, train it with a warm-up, pack it to 2 bits a weight.

The task is a table to learn by heart: a * b modulo 11 for all numbers below 24. The dense twin starts from the same weights. Rounding
the trained twin to trits afterwards shows what training through the rounding is for.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional

import bedstone as bs
from bedstone import quant

NUMBERS, MODULUS, STEPS = 24, 11, 150


def table() -> tuple[torch.Tensor, torch.Tensor]:
    """Return every pair of numbers as one-hot vectors, and its answer."""
    pairs = torch.cartesian_prod(torch.arange(NUMBERS), torch.arange(NUMBERS))
    return functional.one_hot(pairs, NUMBERS).flatten(1).float(), pairs.prod(dim=1) % MODULUS


def train(model: nn.Module, *, warmup: int = 0) -> None:
    """Learn the table; with a warm-up, a ternary model feels the whole rounding from that step on."""
    x, answers = table()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(1, STEPS + 1):
        if warmup:
            quant.set_strength(model, min(1, step / warmup))
        optimizer.zero_grad()
        functional.cross_entropy(model(x), answers).backward()
        optimizer.step()


@torch.no_grad()
def right(model: nn.Module) -> str:
    """Return the share of the table that the model knows."""
    x, answers = table()
    return f"{(model(x).argmax(dim=1) == answers).float().mean():.1%} right"


def main() -> None:
    torch.manual_seed(0)
    shape = [nn.Linear(2 * NUMBERS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, MODULUS)]
    dense = nn.Sequential(*shape)
    ternary = copy.deepcopy(dense)
    print(quant.to_bitlinear(ternary, skip=["4"]))  # as usual, the output head stays dense
    print(ternary[0])

    train(dense)
    train(ternary, warmup=40)
    print(f"dense: {right(dense)}")
    print(f"ternary: {right(ternary)}")

    packed = quant.pack(ternary)
    before, after = sum(p.dense_bytes for p in packed), sum(p.packed_bytes for p in packed)
    print(f"ternary, packed from {before:,} to {after:,} bytes: {right(ternary)}")
    bs.quantize(dense, "ternary", skip=["4"])
    print(f"dense, rounded to trits afterwards: {right(dense)}")


if __name__ == "__main__":
    main()
