"""A packed weight is copied, moved, stored, loaded and assigned like a dense one, stays packed, and stays frozen."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import bedstone as bs
from bedstone import quant
from bedstone.quant import QuantizationError, QuantizedTensor


def same(first, second):
    """Whether two weights have the same scheme, shape and parts, bit for bit."""
    parts = first.parts, second.parts
    return (first.scheme, first.shape, list(parts[0])) == (second.scheme, second.shape, list(parts[1])) and all(
        torch.equal(part.view(-1).view(torch.uint8), parts[1][name].view(-1).view(torch.uint8))
        for name, part in parts[0].items()
    )


def test_says_what_it_is(weight, scheme):
    """Shape, dtype and device of the dense weight, and the true bytes."""
    assert isinstance(weight, nn.Parameter)
    assert isinstance(weight, QuantizedTensor)
    assert (weight.shape, weight.dtype, weight.device.type) == ((8, 96), torch.float32, "cpu")
    assert weight.packed_bytes == sum(part.nbytes for part in weight.parts.values())
    assert weight.bits_per_param == 8 * weight.packed_bytes / 768
    assert f"QuantizedTensor({scheme.name}, shape=(8, 96), dtype=torch.float32, device=cpu, " in repr(weight)


def test_dequantize_gives_a_fresh_dense_tensor_of_any_dtype(weight):
    """Rounded once, from float32."""
    dense = weight.dequantize()
    assert type(dense) is torch.Tensor
    assert torch.equal(weight.dequantize(torch.bfloat16), dense.bfloat16())
    assert torch.equal(weight.dequantize(torch.float64), dense.double())
    dense.zero_()
    assert weight.dequantize().any()


def test_reaches_numpy_and_lists_as_a_copy_that_cannot_be_written(weight):
    """For plots; `weight.numpy()` of a dense tensor could be written to."""
    array = weight.detach().numpy()
    assert array.tolist() == weight.tolist() == weight.dequantize().tolist()
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 7


# --- the data setter -----------------------------------------------------------------------------


def test_data_takes_a_dense_value_by_packing_it(weight, scheme):
    """What peft's DoRA, BOFT, MiSS and IA3 do when they merge; without this rule the merge is lost in silence."""
    value = torch.randn(8, 96)
    weight.data = value
    assert same(weight, scheme.quantize(value))


def test_data_takes_a_packed_value_as_it_is(weight, scheme):
    """Without a copy, and with its dtype."""
    value = scheme.quantize(torch.randn(8, 96, dtype=torch.bfloat16))
    weight.data = value
    assert weight.dtype is torch.bfloat16
    assert all(part is value.parts[name] for name, part in weight.parts.items())


def test_data_takes_a_value_of_another_dtype_or_scheme(weight):
    """`prepare_model_for_kbit_training` sets data this way."""
    weight.data = weight.data.to(torch.float64)
    assert (weight.dtype, weight.data.dtype) == (torch.float64, torch.float64)
    other = bs.quantize(torch.ones(8, 96), quant.Int8(granularity="block", block_size=8))
    weight.data = other
    assert weight.scheme == other.scheme
    assert same(weight, other)


def test_data_refuses_what_cannot_be_packed_and_keeps_what_it_has(weight):
    """NaN, integers."""
    before = weight.detach().clone()
    with pytest.raises(quant.NonFiniteWeightError):
        weight.data = torch.full((8, 96), float("nan"))
    with pytest.raises(QuantizationError, match=r"holds floating-point weights, not torch\.int64"):
        weight.data = torch.ones(8, 96, dtype=torch.int64)
    assert same(weight, before)


# --- copies and moves ----------------------------------------------------------------------------


def copies(layer):
    """Layers that should equal `layer`, by the way they were copied."""
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    return {
        "deepcopy": copy.deepcopy(layer),
        "pickle": pickle.loads(pickle.dumps(layer)),
        "torch.save": torch.load(buffer, weights_only=False),
    }


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_a_copied_layer_is_equal_and_apart(layer, way):
    """Parameters stay parameters, and a write to the copy leaves the original."""
    other = copies(layer)[way]
    assert same(layer.weight, other.weight)
    assert isinstance(other.weight, nn.Parameter)
    assert not other.weight.requires_grad
    other.weight.zero_()
    assert layer.weight.dequantize().any()


def test_torch_load_reads_it_with_weights_only(layer):
    """One function is trusted; it takes plain values."""
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert same(state["weight"], layer.weight)


def test_deepcopy_keeps_ties():
    """Two layers that share a weight share the copy."""
    model = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64)])
    model[1].weight = model[0].weight
    bs.quantize(model, "nf4")
    other = copy.deepcopy(model)
    assert other[0].weight is other[1].weight


def test_a_change_of_dtype_stays_packed_and_exact(layer, x):
    """The parts do not depend on it; back in float32 nothing is lost."""
    before = layer.weight.detach().clone()
    half = layer.to(torch.bfloat16)
    assert (half.weight.dtype, type(half.weight.data)) == (torch.bfloat16, QuantizedTensor)
    assert half(x.bfloat16()).dtype is torch.bfloat16
    assert same(half.float().weight, before)
    assert type(half.weight.to(torch.int32)) is torch.Tensor


def test_to_meta_and_back_to_empty_memory_stays_packed(layer, x):
    """How a large model is built without memory; the forward pass knows its shape there."""
    meta = copy.deepcopy(layer).to("meta")
    assert {part.device.type for part in meta.weight.parts.values()} == {"meta"}
    assert meta(x.to("meta")).shape == (3, 8)
    empty = meta.to_empty(device="cpu")
    assert isinstance(empty.weight, QuantizedTensor)
    assert empty.weight.device.type == "cpu"
    empty.load_state_dict(layer.state_dict())
    assert same(empty.weight, layer.weight)


def test_quantizing_on_meta_gives_the_sizes(scheme):
    """So that a plan can be made before memory is taken."""
    real, meta = (scheme.quantize(torch.ones(5, 33, device=device)) for device in ("cpu", "meta"))
    assert [(n, p.shape, p.dtype) for n, p in real.parts.items()] == [
        (n, p.shape, p.dtype) for n, p in meta.parts.items()
    ]


def test_fake_tensors_agree_with_real_ones(layer, x):
    """Both made under the mode and brought into it."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        made = mode.from_tensor(layer.weight)
        out = nn.functional.linear(mode.from_tensor(x), made, mode.from_tensor(layer.bias))
        again = layer.weight.scheme.quantize(torch.randn(8, 96))
    assert isinstance(made, QuantizedTensor)
    assert out.shape == (3, 8)
    assert [p.shape for p in again.parts.values()] == [p.shape for p in layer.weight.parts.values()]


def test_share_memory_shares_the_parts(layer):
    """Torch's own way reads a storage that is not there, and crashes."""
    assert not layer.weight.is_shared()
    layer.share_memory()
    assert layer.weight.is_shared()
    assert all(part.is_shared() for part in layer.weight.parts.values())


def _write_zero(weight):
    weight.zero_()


def test_another_process_sees_and_changes_shared_parts():
    """Through torch's multiprocessing, as with a dense tensor."""
    weight = bs.quantize(torch.ones(2, 64), "fp8").share_memory_()
    child = mp.get_context("fork").Process(target=_write_zero, args=(weight,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert not weight.dequantize().any()


# --- state dict ----------------------------------------------------------------------------------


def test_packed_to_packed_is_exact(layer, scheme):
    """No requantization."""
    other = nn.Linear(96, 8)
    bs.quantize(other, scheme)
    other.load_state_dict(layer.state_dict())
    assert same(other.weight, layer.weight)


def test_packed_to_another_scheme_packs_the_dense_values(layer):
    """It keeps the scheme of the model that loads."""
    other = nn.Linear(96, 8)
    bs.quantize(other, quant.Int8(granularity="block", block_size=16))
    other.load_state_dict(layer.state_dict())
    assert same(other.weight, other.weight.scheme.quantize(layer.weight.dequantize()))


def test_dense_to_packed_packs_it(layer, scheme):
    """A dense checkpoint goes into a packed model."""
    dense = nn.Linear(96, 8)
    layer.load_state_dict(dense.state_dict())
    assert same(layer.weight, scheme.quantize(dense.weight))


def test_packed_to_dense_unpacks_it(layer):
    """The model that loads stays dense and trainable."""
    dense = nn.Linear(96, 8)
    dense.load_state_dict(layer.state_dict())
    assert type(dense.weight) is nn.Parameter
    assert dense.weight.requires_grad
    assert torch.equal(dense.weight, layer.weight.dequantize())


def test_assign_puts_the_packed_weight_into_a_frozen_layer(layer):
    """Also onto meta, where there was nothing to copy into."""
    with torch.device("meta"):
        empty = nn.Linear(96, 8).requires_grad_(False)
    empty.load_state_dict(layer.state_dict(), assign=True)
    assert same(empty.weight, layer.weight)


def test_assign_into_a_trainable_layer_says_what_to_do(layer):
    """Torch would make the packed weight require a gradient, as the dense one did."""
    with pytest.raises(RuntimeError, match=r"freeze the layer: layer\.requires_grad_\(False\)"):
        nn.Linear(96, 8).load_state_dict(layer.state_dict(), assign=True)


def test_a_state_dict_of_another_shape_is_refused(layer):
    """By torch, with both shapes."""
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        layer.load_state_dict(nn.Linear(64, 8).state_dict())


# --- frozen --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thaw",
    [
        lambda layer: layer.weight.requires_grad_(),
        lambda layer: layer.weight.requires_grad_(requires_grad=True),
        lambda layer: setattr(layer.weight, "requires_grad", True),
        lambda layer: layer.requires_grad_(True),
        lambda layer: nn.Parameter(layer.weight),
    ],
)
def test_refuses_to_require_a_gradient(layer, thaw):
    """It would never get one; training it would do nothing, in silence."""
    with pytest.raises(QuantizationError) as caught:
        thaw(layer)
    assert str(caught.value) == (
        f"A packed {layer.weight.scheme.name} weight is frozen and cannot require a gradient, nor take the place of one "
        "that does. Train an adapter on it, dequantize it first, or freeze the layer: layer.requires_grad_(False)."
    )
    assert not layer.weight.requires_grad


def test_freezing_is_allowed(layer):
    """As peft does with every base weight."""
    layer.requires_grad_(False)
    layer.weight.requires_grad = False
    assert not layer.weight.requires_grad_(False).requires_grad


def test_nothing_above_warns(layer):
    """Not of typed storages, nor of hashing for the compiler's cache."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copies(layer)
        assert layer.weight._stable_hash_for_caching() == copy.deepcopy(layer).weight._stable_hash_for_caching()
    other = bs.quantize(torch.ones(8, 96, dtype=torch.bfloat16), layer.weight.scheme)
    assert layer.weight._stable_hash_for_caching() != other._stable_hash_for_caching()
