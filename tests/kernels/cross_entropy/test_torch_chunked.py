"""torch's own loss in parts computes what ours does, never all logits, and is taken only where it applies."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bedstone.core.errors import UnsupportedError
from bedstone.kernels import KernelExtension, explain
from bedstone.kernels.cross_entropy import reference, torch_chunked
from bedstone.testing import check_kernel

ON_CPU = torch_chunked.IMPLEMENTATION.but(devices=())


def arguments(rows=40, columns=24, vocabulary=500, dtype=torch.float32, of_hidden=True, of_weight=True, bias=True):
    generator = torch.Generator().manual_seed(0)
    made = [
        torch.randn(shape, generator=generator).to(dtype)
        for shape in ((rows, columns), (vocabulary, columns), (vocabulary,))
    ]
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    labels[::5] = -100
    return *made[:2], made[2] if bias else None, labels, None, -100, 0.0, 0.0, 0.0, of_hidden, of_weight


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("of_hidden", [True, False])
@pytest.mark.parametrize("of_weight", [True, False])
def test_computes_what_ours_does(of_hidden, of_weight, bias):
    """Losses of rows and the gradients that are asked for; empty ones else."""
    call = arguments(of_hidden=of_hidden, of_weight=of_weight, bias=bias)
    for ours, theirs in zip(
        reference.losses_and_gradients(*call), torch_chunked.losses_and_gradients(*call), strict=True
    ):
        assert ours.dtype is theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_passes_the_conformance_kit_where_it_may_be_tried():
    """On a CPU, which it is not offered for."""
    assert check_kernel(KernelExtension("linear_cross_entropy", ON_CPU)) >= 10


def test_never_computes_all_logits(measured_bytes):
    """A tenth of them at most, where torch without options takes all of them, and more."""
    hidden, weight, _, labels, *_ = call = arguments(rows=1000, columns=32, vocabulary=8000, bias=False)
    logits = 4 * 1000 * 8000
    assert measured_bytes(lambda: torch_chunked.losses_and_gradients(*call)) < logits / 10
    hidden.requires_grad_()
    cliff = measured_bytes(lambda: torch.autograd.grad(functional.linear_cross_entropy(hidden, weight, labels), hidden))
    assert cliff > logits


@pytest.mark.parametrize("option", ["smoothing", "softcap", "weights", "z-loss"])
def test_is_refused_what_torch_would_compute_whole_or_not_at_all(option):
    """Each option, by name."""
    spec = explain("linear_cross_entropy", device="cuda", options=option).spec
    assert torch_chunked.IMPLEMENTATION.refuses(spec) == f"torch has no {option} in parts: it would compute all logits"


def test_labels_that_torch_would_compute_whole_are_an_error():
    """It would warn and take the memory."""
    hidden, weight, bias, labels, *rest = arguments()
    with pytest.raises(UnsupportedError, match="torch would compute all logits at once"):
        torch_chunked.losses_and_gradients(hidden, weight, bias, labels.to(torch.int32), *rest)


def test_is_offered_on_cuda_only():
    """With the reason."""
    reasons = dict(explain("linear_cross_entropy").rejected)
    assert reasons["torch_chunked"] == (
        "it runs on cuda, not on cpu: on a CPU it takes longer than plain torch in larger parts"
    )
    assert "torch_chunked" not in dict(explain("linear_cross_entropy", device="cuda").rejected)


def test_works_in_what_it_declares(measured_bytes):
    """Measured by torch's allocator."""
    for dtype in (torch.float32, torch.bfloat16):
        call = arguments(rows=1000, columns=32, vocabulary=8000, dtype=dtype, bias=False)
        measured = measured_bytes(lambda call=call: torch_chunked.losses_and_gradients(*call))
        assert measured <= ON_CPU.workspace(*call)
