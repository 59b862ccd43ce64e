"""What a packed weight can be cut into, what is done about the rest, and how a shard behaves, in one process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import bedstone as bs
from bedstone import quant
from bedstone.core.errors import InvalidConfigError
from bedstone.quant.errors import PackedWriteError, QuantizationError
from bedstone.quant.row_shard import RowShard, empty_shard
from bedstone.quant.sharding import expand_scales, prepare_for_sharding, why_not_cut

DOUBLE = quant.NF4(double_quant=True)


def test_a_model_without_packed_weights_needs_no_preparation():
    """Nothing is expanded, nothing stays whole."""
    report = prepare_for_sharding(nn.Linear(4, 4), ranks=2)
    assert (report.expanded, report.whole, report.reasons) == ((), {}, {})


def test_preparing_for_no_rank_is_refused():
    """The number comes from a configuration as often as from torch."""
    with pytest.raises(InvalidConfigError, match=r"^`ranks` \(=0\) must be at least 1\.$"):
        prepare_for_sharding(nn.Linear(4, 4), ranks=0)


def test_layers_that_share_a_weight_go_on_sharing_it():
    """The expanded one, named for both."""
    model = nn.ModuleDict({"a": nn.Linear(64, 8), "b": nn.Linear(64, 8)})
    model["b"].weight = model["a"].weight
    bs.quantize(model, DOUBLE)
    report = prepare_for_sharding(model, ranks=2)
    assert report.expanded == ("a.weight", "b.weight")
    assert model["a"].weight is model["b"].weight
    assert model["a"].weight.scheme == quant.NF4()


@given(
    st.sampled_from(
        [quant.NF4(32), quant.FP4(64), DOUBLE, quant.FP4(32, double_quant=True), quant.Int8(), quant.FP8()]
    ),
    st.integers(1, 40),
    st.sampled_from([32, 64, 96, 512]),
    st.integers(1, 5),
)
def test_rows_that_are_cut_unpack_to_rows_of_the_whole(scheme, rows, columns, ranks):
    """Wherever `why_not_cut` has no objection, and after `expand_scales` the values are the same bits."""
    weight = bs.quantize(torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)), scheme)
    assert torch.equal(expand_scales(weight).dequantize(), weight.dequantize())
    size = -(-rows // ranks)
    if not why_not_cut(weight, size):
        pieces = weight.split(size)
        assert all(type(piece) is type(weight) for piece in pieces)
        assert torch.equal(torch.cat([piece.dequantize() for piece in pieces]), weight.dequantize())


def test_a_vector_is_one_row():
    """It cannot be cut; a slice of it is dense."""
    weight = bs.quantize(torch.arange(1.0, 9.0), "int8")
    assert torch.equal(weight[2:5] + 0, weight.dequantize()[2:5])
    with pytest.raises(
        QuantizationError,
        match=r"^int8 cannot be cut at 2 to 5: a weight of one dimension is a single row\. Keep the weight whole",
    ):
        weight.scheme.slice_rows(weight.parts, weight.shape, 2, 5)


def shard_of(scheme, rows=4) -> RowShard:
    """The first half of a weight, as FSDP2 makes it."""
    weight = bs.quantize(torch.randn(2 * rows, 64), scheme)
    shard = empty_shard(weight, (rows, 64))
    shard.copy_(weight[:rows])
    return shard


def test_a_shard_of_one_scale_takes_packed_rows_and_no_dense_ones():
    """Dense rows would give it a scale of its own, beside that of the other ranks."""
    shard = shard_of(quant.FP8("tensor"))
    with pytest.raises(PackedWriteError) as caught:
        shard.copy_(torch.ones(4, 64))
    assert str(caught.value) == (
        "copy_ would write to rows of a sharded fp8 weight, all of which share `absmax`. "
        "Write to the whole weight before fully_shard, or load a packed checkpoint."
    )
    shard_of("int8").copy_(torch.ones(4, 64))


def test_the_flat_view_of_a_shard_refuses_writes():
    """It is a copy, and the write would be lost."""
    with pytest.raises(PackedWriteError, match="would be lost"):
        shard_of("int8").view(-1).zero_()


def test_a_part_that_is_not_gathered_follows_the_shard_unnoticed_by_autograd():
    """The second gather finds another scale in the shard, as after a load, between a forward pass and its backward pass."""
    shard = shard_of(quant.FP8("tensor"))
    inputs, kept = shard.fsdp_pre_all_gather(SimpleNamespace(size=lambda: 2))
    outputs = tuple(torch.cat([part, part]) for part in inputs)
    whole, _ = shard.fsdp_post_all_gather(outputs, kept, torch.float32)
    version = whole.parts["absmax"]._version
    moved = {name: None if part is None else part.clone() * 2 for name, part in kept.items()}
    before = whole.dequantize()
    shard.fsdp_post_all_gather(outputs, moved, torch.float32, out=whole)
    assert torch.equal(whole.dequantize(), 2 * before)
    assert whole.parts["absmax"]._version == version


def test_a_shard_travels_through_pickle_as_the_packed_weight_of_its_rows(tmp_path):
    """So a checkpoint does not depend on the number of ranks."""
    shard = shard_of("nf4")
    torch.save(shard, tmp_path / "shard.pt")
    loaded = torch.load(tmp_path / "shard.pt", weights_only=True)
    assert type(loaded).__name__ == "QuantizedTensor"
    assert torch.equal(loaded.dequantize(), shard.dequantize())


def test_a_weight_keeps_its_parts_when_it_is_given_the_values_that_it_has():
    """Ternary weights packed from their own values would move by a quarter; DDP writes such values on every rank."""
    weight = bs.quantize(torch.randn(8, 64), "ternary")
    before = weight.clone()
    weight.copy_(weight.dequantize())
    assert torch.equal(weight.parts["scale"], before.parts["scale"])
    assert torch.equal(weight.parts["packed"], before.parts["packed"])
