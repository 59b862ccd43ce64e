"""A quantization scheme of your own: two methods, and a model packs with it, adapts on it, saves and loads it.

Four bits a weight, affine: w ~ low + step * code with codes 0 ... 15, where low is the smallest weight of a row and step a
fifteenth of the row's range. Rounding is off by at most half a step.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

import bedstone as bs
from bedstone import quant
from bedstone.testing import check_quantizer


# Another package names its class in an entry point of the group bedstone.quantizers instead.
@quant.schemes.register("affine4")
@dataclass(frozen=True)
class Affine4(quant.Scheme):
    """Parts: codes uint8 [..., ceil(columns / 2)], low and step float32 [..., 1]."""

    name: ClassVar[str] = "affine4"

    def check(self, tensor: torch.Tensor) -> None:
        """Refuse a weight without columns, which has no smallest value."""
        super().check(tensor)  # floating point, finite, at least one dimension
        if not tensor.shape[-1]:
            raise quant.QuantizationError("affine4 packs rows of at least one column, not of 0.", scheme=self.name)

    def pack(self, weight: torch.Tensor) -> quant.Parts:
        """Return codes two a byte, the smallest weight of each row, and the step."""
        rows = weight.float()
        low, high = torch.aminmax(rows, dim=-1, keepdim=True)
        step = (high - low) / 15
        codes = ((rows - low) / torch.where(step > 0, step, 1.0)).round().clamp(0, 15).to(torch.uint8)
        codes = functional.pad(codes, (0, codes.shape[-1] % 2))
        return {"codes": codes[..., 0::2] | (codes[..., 1::2] << 4), "low": low, "step": step}

    def unpack(self, parts: quant.Parts, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """Return the dense weight."""
        both = torch.stack([parts["codes"] & 15, parts["codes"] >> 4], dim=-1).flatten(-2)
        return (both[..., : shape[-1]] * parts["step"] + parts["low"]).to(dtype)


def half_a_step(weight: torch.Tensor) -> torch.Tensor:
    """The error that the scheme promises, for each row."""
    low, high = torch.aminmax(weight, dim=-1, keepdim=True)
    return (high - low) / 30


def main() -> None:
    check_quantizer(Affine4(), bound=half_a_step)
    print("The contract is kept: error, shapes, dtypes, refusals, storage, gradients, compilation.")

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(128, 256), torch.nn.GELU(), torch.nn.Linear(256, 8))
    x = torch.randn(4, 128)
    before = model(x)
    print(bs.quantize(model, "affine4", measure=True))
    weight = model[0].weight
    print(
        f"The first weight is {weight.scheme}, {weight.bits_per_param:.2f} bits a weight, in a {type(model[0]).__name__}."
    )
    print(f"The output moved by {((model(x) - before).norm() / before.norm()).item():.1%}.")

    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    print("It comes back from a file:", torch.load(file, weights_only=True)["0.weight"])
    try:
        bs.quantize(torch.ones(4, 0), "affine4")
    except quant.QuantizationError as problem:
        print(f"Refused: {problem}")


if __name__ == "__main__":
    main()
