"""A product with a packed weight is the product with the dense weight, to the derivative and beyond, for every format."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from bedstone.core.memory import free_workspaces
from bedstone.kernels import tiles

# One rounding of the result to the dtype; float32 and float64 products add in another order. A CPU that multiplies bfloat16 itself rounds
# the weight to it before, and the product before the bias, as a dense layer of bfloat16 does.
BFLOAT16 = 3 * 2**-9 if tiles.multiplies_bfloat16() else 2**-8
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-6, torch.bfloat16: BFLOAT16, torch.float16: 2**-11}
SHAPES = [(5, 96), (7, 130), (16, 256), (3, 64), (2, 1)]


def weight_of(rows, columns):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows + columns))


def error(found, expected, size=None):
    """The largest error over the largest entry, or over the largest of `size`: the same sum of magnitudes, without signs."""
    size = expected if size is None else size
    return float((found.double() - expected.double()).abs().amax() / size.abs().amax().clamp_min(1e-30))


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_dense_product(pack, shape):
    """Forward and the gradient of the input; with and without bias; the dtype of the result is that of the input."""
    weight = pack(weight_of(*shape))
    dense = weight.dense.double()
    for dtype, tolerance in TOLERANCES.items():
        for inputs in (1, 4, 17):
            x, grad = torch.randn(inputs, shape[1]).to(dtype), torch.randn(inputs, shape[0]).to(dtype)
            bias = torch.randn(shape[0]).to(dtype)
            product, size = x.double() @ dense.T, x.double().abs() @ dense.T.abs()
            plain, biased = (weight.linear(x, *weight.arguments, each) for each in (None, bias))
            back = weight.input_grad_op(grad, *weight.arguments)
            assert (plain.dtype, biased.dtype, back.dtype) == (dtype, dtype, dtype)
            assert error(plain, product, size) <= tolerance
            assert error(biased, product + bias.double(), size + bias.double().abs()) <= tolerance
            assert error(back, grad.double() @ dense, grad.double().abs() @ dense.abs()) <= tolerance


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_takes_an_empty_weight(pack, shape):
    """No rows give no outputs, no columns give the bias."""
    weight = pack(torch.zeros(shape))
    x, bias = torch.ones(3, shape[1], requires_grad=True), torch.ones(shape[0], requires_grad=True)
    out = weight.linear(x, *weight.arguments, bias)
    assert torch.equal(out, torch.ones(3, shape[0]))
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros(3, shape[1]))
    assert torch.equal(bias.grad, torch.full((shape[0],), 3.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_takes_no_inputs_and_any_leading_dimensions(pack, dtype):
    """Zero tokens, one vector, a batch of sequences."""
    weight = pack(weight_of(5, 64))
    for leading in [(0,), (2, 0), (), (2, 3)]:
        x = torch.randn(*leading, 64, dtype=dtype)
        out = weight.linear(x, *weight.arguments, None)
        assert out.shape == (*leading, 5)
        assert weight.input_grad_op(out, *weight.arguments).shape == x.shape


def test_takes_inputs_with_any_strides(pack):
    """Transposed, sliced and broadcast inputs give what their copies give."""
    weight = pack(weight_of(64, 64))
    for dtype in (torch.float32, torch.bfloat16):
        for x in (
            torch.randn(64, 3).to(dtype).T,
            torch.randn(3, 128).to(dtype)[:, ::2],
            torch.randn(3, 128).to(dtype)[:, 64:],
            torch.randn(2, 3, 64).to(dtype).transpose(0, 1),
            torch.randn(1, 64).to(dtype).expand(4, 64),
        ):
            copy = x.contiguous()
            pairs = [(weight.linear(each, *weight.arguments, None) for each in (x, copy))]
            pairs += [(weight.input_grad_op(each, *weight.arguments) for each in (x, copy))]
            assert max(error(*pair) for pair in pairs) <= TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lets_infinities_and_nan_pass(pack, dtype):
    """A row of x that is not finite gives a row that is not finite; the others are untouched."""
    weight = pack(weight_of(5, 64))
    x = torch.randn(4, 64, dtype=dtype)
    expected = weight.linear(x, *weight.arguments, None)
    x[1, 3], x[2, 5] = torch.nan, torch.inf
    found = weight.linear(x, *weight.arguments, None)
    assert torch.equal(found[[0, 3]], expected[[0, 3]])
    assert found[1].isnan().all()
    assert not found[2].isfinite().any()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's forward mode
def test_has_exact_derivatives(pack):
    """`gradcheck` and `gradgradcheck` of the product in x and bias, and of the gradient as an operation of its own."""
    weight = pack(weight_of(3, 10))
    x = torch.randn(2, 10, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def linear(x, bias):
        return weight.linear(x, *weight.arguments, bias)

    def input_grad(grad):
        return weight.input_grad_op(grad, *weight.arguments)

    for check in (gradcheck, gradgradcheck):
        assert check(linear, (x, bias))
        assert check(input_grad, (grad,))
    assert gradcheck(linear, (x, bias), check_forward_ad=True, check_backward_ad=False)


def test_asks_for_no_gradient_of_the_weight(pack):
    """Only what is needed is computed, and scales that require a gradient get none."""
    weight = pack(weight_of(3, 64))
    x, bias = torch.randn(2, 64), torch.randn(3, requires_grad=True)
    weight.linear(x, *weight.arguments, bias).sum().backward()
    assert torch.equal(bias.grad, torch.full((3,), 2.0))


def test_obeys_the_transforms_of_torch_func(pack):
    """`grad`, `vmap` and one inside the other."""
    weight = pack(weight_of(3, 64))
    dense = weight.dense
    x = torch.randn(4, 2, 64)

    def loss(x):
        return weight.linear(x, *weight.arguments, None).sin().sum()

    def expected_loss(x):
        return (x @ dense.T).sin().sum()

    torch.testing.assert_close(torch.func.grad(loss)(x), torch.func.grad(expected_loss)(x))
    torch.testing.assert_close(torch.func.vmap(loss)(x), torch.func.vmap(expected_loss)(x))
    per_sample = torch.func.vmap(torch.func.grad(loss))
    torch.testing.assert_close(per_sample(x), torch.func.vmap(torch.func.grad(expected_loss))(x))
    batched = torch.func.vmap(lambda g: weight.input_grad_op(g, *weight.arguments), in_dims=1)
    grad = torch.randn(2, 4, 3)
    torch.testing.assert_close(batched(grad), torch.einsum("abn,nk->bak", grad, dense))


def test_refuses_to_batch_a_packed_weight(pack):
    """A weight is data, not a batch: the error says so."""
    weight = pack(weight_of(3, 64))
    first = weight.arguments[0].unsqueeze(0)
    with pytest.raises(
        NotImplementedError, match="can be batched over its first argument only, not over a packed weight"
    ):
        torch.func.vmap(lambda part: weight.linear_op(torch.ones(1, 64), part, *weight.arguments[1:], None))(first)


@pytest.mark.parametrize("shape", [(40, 96), (23, 130)])
def test_does_not_depend_on_the_size_of_a_tile(pack, shape, monkeypatch):
    """One row a tile, a few, or all: the same to 1e-6, since only the order of a sum may change."""
    weight = pack(weight_of(*shape))
    x, grad = torch.randn(9, shape[1]), torch.randn(9, shape[0])
    whole = weight.linear(x, *weight.arguments, None), weight.input_grad_op(grad, *weight.arguments)
    for tile_bytes in (1, 4 * shape[1] * 3, 4 * shape[1] * 17):
        monkeypatch.setattr(tiles, "TILE_BYTES", tile_bytes)
        free_workspaces()
        cut = weight.linear(x, *weight.arguments, None), weight.input_grad_op(grad, *weight.arguments)
        assert max(error(found, expected) for found, expected in zip(cut, whole, strict=True)) <= 1e-6


@pytest.mark.parametrize("inputs", [1, 8, 64])
def test_does_not_depend_on_the_number_of_threads(pack, inputs):
    """Bit for bit, wherever the dense product of the BLAS does not (MKL's does for 5 to 7 rows of x, for instance)."""
    weight = pack(weight_of(192, 320))
    x, grad = torch.randn(inputs, 320), torch.randn(inputs, 192)
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            parts = weight.dense, weight.linear(x, *weight.arguments, None)
            half = weight.linear(x.bfloat16(), *weight.arguments, None)
            results.append((*parts, half, weight.input_grad_op(grad, *weight.arguments)))
    finally:
        torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(found, expected) for found, expected in zip(other, results[0], strict=True))


def test_works_after_a_first_call_in_inference_mode(pack):
    """Buffers and tables that inference mode made can be written to and trained through afterwards."""
    with torch.inference_mode():
        inferred = pack(weight_of(5, 64))
        inferred.linear(torch.ones(1, 64), *inferred.arguments, None)
    weight = pack(weight_of(5, 64))
    x = torch.ones(2, 64, requires_grad=True)
    weight.linear(x, *weight.arguments, None).sum().backward()
    torch.testing.assert_close(x.grad, weight.dense.sum(0).expand(2, 64))


def test_does_not_depend_on_torchs_defaults(pack):
    """A model that is loaded under another default dtype or device gets the same weight."""
    dense = weight_of(9, 130)
    expected = pack(dense)
    x = torch.randn(2, 130)
    product = expected.linear(x, *expected.arguments, None)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            found = pack(dense)
            assert torch.equal(found.linear(x, *found.arguments, None), product)
            assert torch.equal(found.dense, expected.dense)
    finally:
        torch.set_default_dtype(torch.float32)


def test_autocast_does_not_reach_inside(pack):
    """Who calls the operation decides on its dtype: a float32 input keeps a float32 product."""
    weight = pack(weight_of(5, 64))
    x = torch.randn(3, 64)
    expected = weight.linear(x, *weight.arguments, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(weight.linear(x, *weight.arguments, None), expected)
