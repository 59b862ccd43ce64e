"""The conformance kit of quantization schemes: passes ours with every option, and names each way to break the contract."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch.nn import functional

from bedstone.quant import FP4, FP8, NF4, Int8, QuantizationError, Scheme, Ternary, schemes
from bedstone.testing import check_quantizer


def of_flat_blocks(size, fraction, of_group=0.0):
    """A fraction of the largest magnitude of each flat block; and one of how far it is from the mean of its group of 256."""

    def bound(weight):
        flat = weight.reshape(-1)
        blocks = functional.pad(flat, (0, -flat.numel() % size)).view(-1, size).abs().amax(1)
        allowed = fraction * blocks
        if of_group:
            spread = (blocks - blocks.mean()).abs()
            groups = functional.pad(spread, (0, -spread.numel() % 256)).view(-1, 256).amax(1)
            allowed = allowed + of_group * groups.repeat_interleave(256)[: blocks.numel()]
        return allowed.repeat_interleave(size)[: flat.numel()].view(weight.shape)

    return bound


def of_column_blocks(granularity, size, fraction):
    """A fraction of the largest magnitude that shares a scale."""

    def bound(weight):
        if granularity == "tensor":
            return fraction * weight.abs().amax()
        size_of_block = size if granularity == "block" else weight.shape[-1]
        blocks = weight.split(size_of_block, -1)
        return torch.cat([fraction * block.abs().amax(-1, keepdim=True).expand_as(block) for block in blocks], -1)

    return bound


# Half of the widest step of each table, as a fraction of the largest magnitude.
HALF_STEP = {"nf4": 0.1520, "fp4": 1 / 6, "int8": 1 / 254, "e4m3fn": 16 / 448, "e5m2": 4096 / 57344}


@pytest.mark.parametrize("kind", [NF4, FP4])
@pytest.mark.parametrize("size", [32, 64, 4096])
def test_passes_our_four_bit_schemes(kind, size):
    """Packed again, nothing moves."""
    check_quantizer(kind(size), bound=of_flat_blocks(size, HALF_STEP[kind.name]), drift=0.0)


@pytest.mark.parametrize("kind", [NF4, FP4])
def test_passes_them_with_double_quantization(kind):
    """A scale is off by up to 1.8 % of the spread of its group, and by so much more each time it is packed."""
    check_quantizer(kind(double_quant=True), bound=of_flat_blocks(64, HALF_STEP[kind.name], 0.018), drift=0.018)


@pytest.mark.parametrize(("granularity", "size"), [("row", 64), ("block", 64), ("block", 7)])
def test_passes_our_int8(granularity, size):
    """Packed again, the scale moves in its last bit."""
    check_quantizer(Int8(granularity, size), bound=of_column_blocks(granularity, size, HALF_STEP["int8"]))


@pytest.mark.parametrize("granularity", ["tensor", "row", "block"])
@pytest.mark.parametrize("kind", ["e4m3fn", "e5m2"])
def test_passes_our_fp8(granularity, kind):
    """Likewise."""
    check_quantizer(FP8(granularity, 32, kind), bound=of_column_blocks(granularity, 32, HALF_STEP[kind]))


@pytest.mark.parametrize("granularity", ["tensor", "row", "block"])
def test_passes_our_ternary(granularity):
    """It promises little: no element grows beyond what it was, and packing again may shrink all of them."""
    check_quantizer(Ternary(granularity, 32), bound=1.0, drift=1.0)


# --- broken schemes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sound(Scheme):
    """int8 for the whole tensor, in plain torch; each test below breaks one thing."""

    name = "sound"

    def pack(self, weight):
        values = weight.float()
        scale = values.abs().amax().view(1) if values.numel() else values.new_zeros(1)
        codes = (values / scale.clamp_min(1e-38) * 127).round().to(torch.int8)
        return {"codes": codes, "scale": scale}

    def unpack(self, parts, shape, dtype):
        return (parts["codes"].float() * (parts["scale"] / 127)).to(dtype).view(shape)


BOUND = 1 / 254


@pytest.fixture
def broken(monkeypatch):
    """A function that makes a registered scheme which differs from `Sound` in some methods or attributes."""

    def make(**changes):
        kind = dataclass(frozen=True)(type("Broken", (Sound,), {"name": "broken", **changes}))
        monkeypatch.setitem(schemes._members, "broken", kind)
        return kind()

    return make


def complaint(scheme, bound=BOUND, **options):
    with pytest.raises(AssertionError) as caught:
        check_quantizer(scheme, bound=bound, **options)
    return str(caught.value)


def test_passes_a_sound_one_of_two_methods(broken):
    """So that what is refused below is refused for what it changes."""
    check_quantizer(broken(), bound=BOUND)


def test_refuses_what_is_no_scheme_or_has_no_name():
    """A class in place of an object, for instance."""
    assert complaint(Sound) == f"`scheme` must be an object of a subclass of bedstone.quant.Scheme: {Sound!r}."

    @dataclass(frozen=True)
    class Nameless(Sound):
        name = "No Name"

    assert complaint(Nameless()) == "`name` (='No Name') must be lower-case letters, digits and _."


def test_refuses_a_scheme_that_is_not_frozen_or_not_registered():
    """Options that can change, or that a file cannot name."""

    class Plain(Sound):
        pass

    assert complaint(Plain()) == "Plain must be a frozen dataclass itself."
    assert complaint(Sound()) == (
        "Sound must be registered as 'sound', or files cannot name it: an entry point in bedstone.quantizers, "
        "or `schemes.register`."
    )


def test_refuses_options_that_do_not_survive_json(broken):
    """A tuple comes back as a list."""
    scheme = broken(__annotations__={"sizes": tuple}, sizes=field(default=(1, 2)))
    assert complaint(scheme).startswith("The options must survive JSON: ")


def test_refuses_a_scheme_that_cannot_take_an_ordinary_matrix(broken):
    """It may refuse odd shapes, and says so in `check`."""

    def check(self, tensor):
        Scheme.check(self, tensor)
        if tensor.shape[-1] % 64 or tensor.ndim != 2:
            raise QuantizationError("Whole blocks only.", scheme=self.name)

    check_quantizer(broken(check=check), bound=BOUND)

    def check_more(self, tensor):
        Scheme.check(self, tensor)
        raise QuantizationError("Nothing at all.", scheme=self.name)

    said = "broken refuses a matrix (shape (64, 256), torch.float32): Nothing at all."
    assert complaint(broken(check=check_more)) == said


def packing(change):
    """A `pack` that changes what the sound one returns."""

    def pack(self, weight):
        return change(dict(Sound.pack(self, weight)), weight)

    return pack


UNSOUND_PARTS = {
    "no parts": (lambda parts, w: {}, "`pack` must return parts by name, for a matrix not {}."),
    "a name": (lambda parts, w: {**parts, "a b": parts["scale"]}, "The name of a part (='a b') must be an identifier."),
    "a parameter": (
        lambda parts, w: {**parts, "scale": torch.nn.Parameter(parts["scale"], requires_grad=False)},
        "The part 'scale' of a matrix must be a plain tensor, not a Parameter.",
    ),
    "a gradient": (
        lambda parts, w: {**parts, "scale": parts["scale"].requires_grad_()},
        "The part 'scale' of a matrix must not require a gradient.",
    ),
    "a slice": (
        lambda parts, w: {**parts, "scale": parts["scale"].repeat(10)[:1]},
        "The part 'scale' of a matrix keeps 40 bytes alive to use 4; clone what is a slice of something larger.",
    ),
    "the weight": (
        lambda parts, w: {**parts, "dense": w.detach()},
        "The part 'dense' of a matrix shares memory with the weight; a change of one would change the other.",
    ),
    "chance": (
        lambda parts, w: {**parts, "seed": torch.rand(1)},
        "`pack` must be a function of the weight: a second call gave other parts of a matrix.",
    ),
}


@pytest.mark.parametrize(("change", "said"), UNSOUND_PARTS.values(), ids=UNSOUND_PARTS)
def test_names_what_is_wrong_with_the_parts(broken, change, said):
    """One sentence each."""
    assert complaint(broken(pack=packing(change))) == said


def test_refuses_a_pack_that_changes_the_weight(broken):
    """In place arithmetic on what belongs to somebody else."""
    scheme = broken(pack=lambda self, weight: Sound.pack(self, weight.mul_(2)))
    assert complaint(scheme) == "`pack` changed the weight that it was given, a matrix."


def test_refuses_a_pack_that_fails_in_its_own_way(broken):
    """A shape that it cannot take must be refused by `check`."""

    def pack(self, weight):
        return Sound.pack(self, weight.view(-1, 64).view(weight.shape))

    assert complaint(broken(pack=pack)).startswith(
        "Packing a transposed matrix (shape (64, 256)) failed with RuntimeError: "
    )


def test_refuses_an_error_above_the_bound_and_says_where():
    """A bound that nobody keeps is no bound."""
    said = complaint(Int8(), bound=1e-4)
    assert said.startswith("a matrix: the element at (")
    assert said.endswith("; the bound is 8.69e-06.")


def test_looks_at_blocks_of_zeros_and_at_huge_numbers(broken):
    """NaN from a division by zero, infinity from a product of large numbers."""

    def careless(self, weight):
        scale = weight.float().abs().amax().view(1)
        return {"codes": (weight.float() / scale * 127), "scale": scale}

    said = "broken refuses zeros (shape (64, 256), torch.float32): broken cannot hold this weight: `codes`, computed from it,"
    assert complaint(broken(pack=careless)).startswith(said)

    def overflowing(self, parts, shape, dtype):
        return (parts["codes"].float() * parts["scale"] / 127).to(dtype).view(shape)

    assert complaint(broken(unpack=overflowing)) == "`unpack` returned values that are not finite for huge numbers."
    shifted = broken(
        unpack=lambda self, p, shape, dtype: (Sound.unpack(self, p, shape, torch.float32) + 1e-39).to(dtype)
    )
    assert complaint(shifted) == "A weight of zeros must come back as zeros."


def test_refuses_a_drift_that_is_not_stated():
    """Ternary shrinks what is packed twice; double quantization moves its scales."""
    said = complaint(Ternary(), bound=1.0)
    assert said.startswith("Packing a matrix again after unpacking it moved an element by 0.3")
    assert said.endswith(" of the largest magnitude; `drift` allows 1e-06.")
    assert "again after unpacking" in complaint(NF4(double_quant=True), bound=0.2)


def test_refuses_an_unpack_of_another_shape_or_dtype(broken):
    """Flat, or always float32."""
    flat = broken(unpack=lambda self, p, shape, dtype: Sound.unpack(self, p, shape, dtype).reshape(-1))
    assert complaint(flat).startswith(
        "`unpack` returned ((16384,), torch.float32) instead of ((64, 256), torch.float32)"
    )
    single = broken(unpack=lambda self, p, shape, dtype: Sound.unpack(self, p, shape, torch.float32))
    assert complaint(single) == "On a fake tensor `unpack` gives ((64, 256), torch.float32) for a matrix."


def test_refuses_a_pack_that_looks_at_values_for_its_shapes(broken):
    """It cannot be planned, nor compiled, nor read from a file."""

    def change(parts, weight):
        real = weight.device.type != "meta" and type(weight) is torch.Tensor
        return {**parts, "scale": parts["scale"].repeat(2) if real else parts["scale"]}

    def unpack(self, parts, shape, dtype):
        return Sound.unpack(self, {**parts, "scale": parts["scale"][:1]}, shape, dtype)

    said = complaint(broken(pack=packing(change), unpack=unpack))
    assert said.startswith("On a fake tensor `pack` gives {'codes': ((64, 256), torch.int8), 'scale': ((1,), ")


def test_refuses_a_scheme_that_rounds_half_types_twice_or_refuses_them(broken):
    """And one that keeps a float16 weight itself."""

    def rounds_twice(self, parts, shape, dtype):
        dense = Sound.unpack(self, parts, shape, torch.float32)
        return dense.to(torch.bfloat16).to(dtype) if dtype is torch.float16 else dense.to(dtype)

    assert complaint(broken(unpack=rounds_twice)) == "`unpack` into torch.float16 must be float32 rounded once."

    def check(self, tensor):
        Scheme.check(self, tensor)
        if tensor.dtype is torch.float16:
            raise QuantizationError("No halves.", scheme=self.name)

    said = "broken refuses a weight of torch.float16 (shape (64, 256), torch.float16): No halves."
    assert complaint(broken(check=check)) == said
    halves = broken(
        pack=lambda self, w: {"half": w if w.dtype is torch.float16 else w.float().clamp(-65504, 65504).half()},
        unpack=lambda self, p, shape, dtype: p["half"].to(dtype).view(shape),
        check=lambda self, w: Scheme.check(self, w) or (self._only_matrix(w)),
        _only_matrix=_only_matrix,
    )
    assert complaint(halves, 1.0, drift=1.0).startswith(
        "The part 'half' of a weight of torch.float16 shares memory with the weight"
    )


def _only_matrix(self, weight):
    if tuple(weight.shape) != (64, 256):
        raise QuantizationError("Only the one.", scheme=self.name)


def test_refuses_a_scheme_that_lets_infinity_in(broken):
    """Its own `check` forgot the one that it replaced."""
    said = complaint(
        broken(check=lambda self, tensor: None, pack=lambda self, w: Sound.pack(self, torch.nan_to_num(w.float())))
    )
    assert said == (
        "a weight with nan must be refused with a NonFiniteWeightError; call `super().check` first in a `check` of your own. "
        "It was packed."
    )


def test_refuses_rows_that_are_copies_or_wrong(broken):
    """A cut weight shares its memory with the whole."""

    def cut(parts, start, stop):
        return {"codes": parts["codes"][start:stop], "scale": parts["scale"]}

    check_quantizer(broken(slice_rows=lambda self, p, shape, a, b: cut(p, a, b)), bound=BOUND)
    wrong = broken(slice_rows=lambda self, p, shape, a, b: cut(p, a - 1, b - 1))
    assert complaint(wrong) == "`slice_rows(16, 32)` must unpack to these rows, bit for bit."
    copies = broken(slice_rows=lambda self, p, shape, a, b: {n: t.clone() for n, t in cut(p, a, b).items()})
    assert complaint(copies) == "`slice_rows` must return views; its part 'codes' is a copy."


def dense_of(scheme, x, parts, shape):
    return scheme.unpack(parts, shape, x.dtype)


BROKEN_PRODUCTS = {
    "of another dtype": (
        lambda s, x, p, shape, b: functional.linear(
            x.float(), s.unpack(p, shape, torch.float32), None if b is None else b.float()
        ),
        "`linear` of (3, 256) in torch.bfloat16 returned (3, 64) in torch.float32 instead of (3, 64) in torch.bfloat16.",
    ),
    "without the bias": (
        lambda s, x, p, shape, b: functional.linear(x, dense_of(s, x, p, shape)) + (0 if b is None else 0 * b),
        "`linear` of (3, 256) in torch.float32: the product is off by ",
    ),
    "without a gradient": (
        lambda s, x, p, shape, b: functional.linear(x.detach(), dense_of(s, x, p, shape), b),
        "`linear` of (3, 256) in torch.float32: the gradient of x is missing.",
    ),
    "that keeps the dense weight": (
        lambda s, x, p, shape, b: functional.linear(x, dense_of(s, x, p, shape), b),
        "`linear` keeps 65,536 bytes for the backward pass, where the parts take 16,388. Keep the parts and unpack them again.",
    ),
    "that asks for a value": (
        lambda s, x, p, shape, b: Scheme.linear(s, x, p, shape, b) * (1 if float(p["scale"]) > 0 else 2),
        "`linear` does not compile into one graph: ",
    ),
}


@pytest.mark.parametrize(("linear", "said"), BROKEN_PRODUCTS.values(), ids=BROKEN_PRODUCTS)
def test_names_what_is_wrong_with_a_product_of_its_own(broken, linear, said):
    """Values, gradients, memory, one graph."""
    assert complaint(broken(linear=linear)).startswith(said)
