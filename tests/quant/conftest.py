"""Every scheme with each of its granularities, for rules that hold for all of them; transformers' BitNet layers as an oracle."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bedstone as bs
from bedstone import quant

SCHEMES = (
    quant.NF4(),
    quant.NF4(double_quant=True),
    quant.FP4(),
    quant.Int8(),
    quant.Int8(granularity="block", block_size=32),
    *(quant.FP8(g, 32, f) for f in ("e4m3fn", "e5m2") for g in ("tensor", "row", "block")),
    *(quant.Ternary(g, 32) for g in ("tensor", "row", "block")),
)


def label(scheme: quant.Scheme) -> str:
    """The name and the options that differ from the defaults."""
    default = type(scheme)()
    options = [str(value) for key, value in vars(scheme).items() if value != getattr(default, key)]
    return "-".join([scheme.name, *options])


@pytest.fixture(params=SCHEMES, ids=label)
def scheme(request):
    """One scheme after the other."""
    return request.param


@pytest.fixture
def layer(scheme):
    """A packed `nn.Linear` of 96 to 8 with a bias: a row is a block and a half."""
    torch.manual_seed(0)
    made = nn.Linear(96, 8)
    bs.quantize(made, scheme)
    return made


@pytest.fixture
def weight(layer):
    """The weight of `layer`."""
    return layer.weight


@pytest.fixture
def x():
    """A batch of 3 inputs for `layer`."""
    return torch.randn(3, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def bitnet_module():
    """The module as it is written: its decorators would compile its functions, which takes a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function: function)
        from transformers.integrations import bitnet as module
    return module


@pytest.fixture
def bitnet(bitnet_module):
    """Transformers' BitNet, run eagerly for one test: kept for longer, it would turn off the compiler for every test after it."""
    with torch.compiler.set_stance("force_eager"):  # in case somebody imported it before
        yield bitnet_module


@pytest.fixture(autouse=True)
def _exact(exact_kernels):
    """A packed layer is compared with the dense one that it stands for; rounded products have tests of their own."""
