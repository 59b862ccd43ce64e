"""A write to a packed weight as a whole packs it anew, to rows it writes through, and a read never notices that it is packed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bedstone as bs
from bedstone import quant
from bedstone.quant import PackedWriteError, QuantizedTensor
from bedstone.quant.view import ReadOnlyView

WRITES = {
    "mul_": lambda w: w.mul_(0.5),
    "add_ of a tensor": lambda w: w.add_(torch.linspace(-1, 1, w.numel()).view(w.shape)),
    "zero_": lambda w: w.zero_(),
    "fill_": lambda w: w.fill_(0.25),
    "clamp_": lambda w: w.clamp_(-0.05, 0.05),
    "copy_ of a row, broadcast": lambda w: w.copy_(torch.linspace(-1, 1, w.shape[1])),
    "masked_fill_": lambda w: w.masked_fill_(w > 0, 0.0),
    "index_copy_": lambda w: w.index_copy_(0, torch.tensor([1]), torch.ones(1, w.shape[1])),
    "addmm_": lambda w: w.addmm_(torch.ones(8, 2), torch.ones(2, 96), alpha=0.01),
    "out=": lambda w: torch.add(torch.ones(w.shape), 1, out=w),
    "foreach": lambda w: torch._foreach_mul_([w], 2.0)[0],
    "nn.init.constant_": lambda w: nn.init.constant_(w, 0.5),
    "nn.init.eye_": nn.init.eye_,
}


def parts_of(weight):
    return {name: part.clone() for name, part in weight.parts.items()}


def same_parts(weight, parts):
    return all(torch.equal(weight.parts[name].float(), part.float()) for name, part in parts.items())


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_to_the_whole_weight_packs_what_it_would_have_written(weight, scheme, write):
    """Into the same memory, and the result is the weight itself."""
    dense, places = weight.dequantize(), {name: part.data_ptr() for name, part in weight.parts.items()}
    result = write(weight)
    write(dense)
    assert result is weight
    assert torch.equal(weight.dequantize(), scheme.quantize(dense).dequantize())
    assert {name: part.data_ptr() for name, part in weight.parts.items()} == places


def test_a_random_initialisation_is_the_one_of_a_dense_weight(weight, scheme):
    """The same seed, the same weight, packed; nothing is lost, as it is with tensors that dequantize for every operation."""
    dense = torch.empty(weight.shape)
    for made in (weight, dense):
        torch.manual_seed(5)
        nn.init.kaiming_uniform_(made)
    assert torch.equal(weight.dequantize(), scheme.quantize(dense).dequantize())


def test_a_write_to_data_or_to_a_detached_weight_reaches_it(weight):
    """They share the parts."""
    weight.data.zero_()
    assert not weight.dequantize().any()
    weight.detach().fill_(1.0)
    assert torch.allclose(weight.dequantize(), torch.ones(8, 96), atol=1e-6)


def test_a_clone_and_an_augmented_assignment(weight):
    """A clone is packed and has its own parts; `w *= 2` keeps the object."""
    clone, same = weight.clone(), weight.detach()
    same *= 0.0
    assert isinstance(clone, QuantizedTensor)
    assert clone.dequantize().any()
    assert not weight.dequantize().any()


CHANGES_OF_SHAPE = {
    "resize_": lambda w: w.resize_(4, 4),
    "unsqueeze_": lambda w: w.unsqueeze_(0),
    "t_": lambda w: w.t_(),
}


@pytest.mark.parametrize(("op", "change"), CHANGES_OF_SHAPE.items(), ids=CHANGES_OF_SHAPE)
def test_refuses_a_change_of_shape_in_place(weight, op, change):
    """And leaves the parts as they were."""
    before = parts_of(weight)
    with pytest.raises(PackedWriteError) as caught:
        change(weight)
    assert caught.value.op == op
    assert str(caught.value).startswith(f"{op} would change the shape of a packed weight from (8, 96) to (")
    assert str(caught.value).endswith("Dequantize it first.")
    assert same_parts(weight, before)


def test_a_write_that_cannot_be_packed_changes_nothing(weight, scheme):
    """Not even the other weights of a `foreach`, which the first one would have let through."""
    other = scheme.quantize(torch.ones(8, 96))
    before, of_other = parts_of(weight), parts_of(other)
    with pytest.raises(quant.NonFiniteWeightError, match=r"the one at \(0, 0\) is nan"):
        weight.mul_(float("nan"))
    with pytest.raises(quant.NonFiniteWeightError, match=r"the one at \(0, 0\) is inf"):
        torch._foreach_mul_([other, weight.fill_(1.0)], [2.0, float("inf")])
    assert same_parts(other, of_other)
    weight.copy_(scheme.quantize(torch.zeros(8, 96)))
    assert not same_parts(weight, before)


# --- rows and views ------------------------------------------------------------------------------


def test_rows_share_the_parts_and_write_through(scheme):
    """Where the scheme can be cut: a row here is a whole number of blocks."""
    rows = 1024 if getattr(scheme, "double_quant", False) else 8
    weight = scheme.quantize(torch.randn(rows, 64))
    half, before = rows // 2, weight.dequantize()
    upper, lower = weight.split(half)
    assert isinstance(upper, QuantizedTensor)
    assert torch.equal(lower.dequantize(), before[half:])
    assert torch.equal(weight[:half].dequantize(), before[:half])
    if upper.tied:
        pytest.skip("these rows cannot be written alone")
    weight[:half] = 0.0
    assert not upper.dequantize().any()
    assert torch.equal(weight.dequantize()[half:], before[half:])


@pytest.mark.parametrize(
    ("scheme", "part"),
    [(quant.FP8("tensor"), "absmax"), (quant.Ternary(), "scale"), (quant.NF4(double_quant=True), "offset")],
    ids=["fp8", "ternary", "nf4"],
)
def test_rows_that_share_a_scale_with_others_refuse_to_be_written(scheme, part):
    """A new scale for them would change the other rows in silence."""
    weight = scheme.quantize(torch.randn(1024, 64))
    before = parts_of(weight)
    with pytest.raises(PackedWriteError) as caught:
        weight[:512] = 0.0
    assert str(caught.value) == (
        f"fill_ would write to rows of a packed weight that share `{part}` with its other rows. "
        "Write to the whole weight instead."
    )
    for rows in (weight[512:], weight[512:].detach(), weight.split(512)[1][:512]):
        with pytest.raises(PackedWriteError, match="copy_ would write to rows"):
            rows.copy_(scheme.quantize(torch.zeros(512, 64)))
    assert same_parts(weight, before)
    rows = weight[:512].clone()
    rows.zero_()
    weight[0:1024].zero_()
    assert not weight.dequantize().any()


def test_rows_that_cut_a_block_are_a_view_that_refuses_to_be_written(weight):
    """A row of 96 columns is one and a half blocks of NF4; a write there would be lost."""
    before = weight.dequantize()
    row = weight[1:2]
    assert torch.equal(row + 0, before[1:2])
    if isinstance(row, QuantizedTensor):  # a scheme whose blocks end with the row
        return
    with pytest.raises(PackedWriteError):
        row.zero_()
    assert torch.equal(weight.dequantize(), before)


VIEWS = {
    "a row": lambda w: w[0],
    "an element": lambda w: w[0, 1],
    "columns": lambda w: w[:, 2:5],
    "every other row": lambda w: w[::2],
    "flat": lambda w: w.view(-1),
    "transposed": lambda w: w.t(),
    "permuted": lambda w: w.permute(1, 0),
    "unsqueezed": lambda w: w.unsqueeze(0),
    "expanded": lambda w: w.expand(2, 8, 96),
    "unbound": lambda w: w.unbind()[3],
    "diagonal": lambda w: w.diagonal(),
    "a chain": lambda w: w.t()[3:40].t()[2:, 5:],
    "detached": lambda w: w[0].detach(),
    "data": lambda w: w[0].data,
    "of data": lambda w: w.data[0],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_reads_like_a_dense_one_and_refuses_to_be_written(weight, view):
    """The write would go to a copy, and be lost."""
    dense, seen = weight.dequantize(), view(weight)
    assert torch.equal(seen + 0, view(dense))
    assert type(seen * 2) is torch.Tensor
    with pytest.raises(PackedWriteError, match="zero_ would write to a view of a packed"):
        seen.zero_()
    assert torch.equal(weight.dequantize(), dense)


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.__setitem__(0, 7.0),
        lambda w: w.data.__setitem__((0, 1), 7.0),
        lambda w: w.view(-1).__setitem__(0, 1.0),
        lambda w: w[0].add_(1),
        lambda w: torch.add(torch.ones(96), 1, out=w[0]),
        lambda w: torch._foreach_zero_([w[0]]),
        lambda w: setattr(w[0], "data", torch.zeros(96)),
        lambda w: w[0].resize_(3),
    ],
)
def test_no_way_to_write_to_a_view_is_silent(weight, write):
    """Assignment, in place, `out=`, `foreach`, `.data =`."""
    before = parts_of(weight)
    with pytest.raises(PackedWriteError, match="Write to the whole weight instead"):
        write(weight)
    assert same_parts(weight, before)


def test_a_view_of_the_same_shape_stays_packed(weight):
    """`view_as(w)` and `reshape` to what it is already share the parts and take writes."""
    weight.view(8, 96).zero_()
    assert not weight.dequantize().any()


def test_everything_else_sees_a_dense_tensor(weight, x):
    """Products, reductions, comparisons, cat and stack; alone, as a list, as a keyword."""
    dense = weight.dequantize()
    assert torch.equal(x @ weight.t(), x @ dense.t())
    assert torch.equal(torch.matmul(input=x, other=weight.mT), x @ dense.mT)
    assert torch.equal(torch.cat([weight, weight]), torch.cat([dense, dense]))
    assert torch.equal(torch.stack([weight, dense]), torch.stack([dense, dense]))
    assert torch.equal(weight == dense, torch.ones(8, 96, dtype=torch.bool))
    assert torch.equal(torch.linalg.vector_norm(weight, dim=1), torch.linalg.vector_norm(dense, dim=1))
    assert torch.equal(torch.zeros(8, 96).copy_(weight), dense)
    assert type(weight + 0) is torch.Tensor


def test_new_tensors_like_it_are_dense(weight):
    """Nothing is unpacked for them; they are made to be computed with."""
    assert type(torch.zeros_like(weight)) is torch.Tensor
    assert torch.equal(torch.ones_like(weight), torch.ones(8, 96))
    assert torch.full_like(weight, 2, dtype=torch.float64).dtype is torch.float64
    assert type(torch.empty_like(weight)) is torch.Tensor
    assert weight.new_zeros(3).shape == (3,)


def test_views_of_views_stay_read_only_and_results_are_plain(weight):
    """So that a long-lived result does not carry the weight's dense copy by accident."""
    row = weight[0]
    assert isinstance(row[1:3], ReadOnlyView)
    assert type(row.clone()) is torch.Tensor
    assert type(row.sum()) is torch.Tensor


def test_copy_between_schemes_packs_anew():
    """And between equal ones it is exact, whatever the dtype."""
    source = bs.quantize(torch.randn(8, 64), "int8")
    target = bs.quantize(torch.zeros(8, 64, dtype=torch.bfloat16), "int8")
    target.copy_(source)
    assert same_parts(target, parts_of(source))
    other = bs.quantize(torch.zeros(8, 64), "nf4")
    other.copy_(source)
    assert torch.equal(other.dequantize(), bs.quantize(source.dequantize(), "nf4").dequantize())
