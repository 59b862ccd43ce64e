"""The conformance kit of a quantization scheme: what everything that holds packed weights relies on, in one call.

A scheme is two methods, and the rest of bedstone believes what they promise: that `unpack(pack(w))` is near `w` for every
weight that was let in, that shapes can be known without values, that nothing but the parts is kept. Each promise is tried here
on weights that break careless schemes: blocks of zeros, subnormal and huge numbers, shapes that no block divides.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bedstone.core.errors import CoreError, DimensionMismatchError
from bedstone.quant import NonFiniteWeightError, QuantizationError, QuantizedTensor, Scheme, scheme_from_dict, schemes
from bedstone.testing.quantizer_product import check_product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Bound = float | Callable[[torch.Tensor], torch.Tensor]

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
_ROUNDING = 1 + 1e-4  # the bound is computed in float32, as the scheme computes
_TINY = torch.finfo(torch.float32).smallest_normal  # below it anything may be called zero


def check_quantizer(scheme: Scheme, *, bound: Bound, drift: float = 1e-6) -> None:
    """Check that a scheme keeps its contract; say which part it breaks.

    Checked: that it is a frozen, hashable value with a registered name that survives JSON; for many weights, that the parts are
    plain tensors of their own whose bytes add up, that packing changes nothing outside, is repeatable, stays within `bound`
    and, repeated on its own result, within `drift`; every floating dtype; that what is not finite, not floating or without
    dimensions is refused; that shapes without values (meta, fake) agree with real ones; saving, loading, copying and cutting
    rows; that the product and its gradients are those of the dense weight, keep the parts only, and compile in one graph.

    A scheme may refuse a shape, for example one that its blocks do not divide, and magnitudes near the end of float32, each
    with a `QuantizationError`. It may not refuse an ordinary matrix of 64 rows and 256 columns.

    Args:
        scheme: An object, with its options.
        bound: The largest error of an element: as a fraction of the largest magnitude of the weight, or a function from a float32
            weight to the allowed errors of its elements, which can tell blocks apart.
        drift: How far an element may move when the unpacked weight is packed again, as a fraction of its largest magnitude. 1e-6
            is rounding; a scheme whose scale is a mean moves further, and says how far.

    Raises:
        AssertionError: The contract is broken; the message says where.

    >>> from bedstone.quant import Int8
    >>> check_quantizer(Int8(), bound=lambda weight: weight.abs().amax(-1, keepdim=True) / 254)
    """
    _check_value(scheme)
    for case, weight, may_refuse in _weights():
        packed = _packed(scheme, weight, case, may_refuse)
        if packed is None:
            continue
        _check_parts(packed, weight, case)
        _check_again(scheme, packed, weight, case)
        _check_error(scheme, packed, weight, bound, case)
        _check_drift(scheme, packed, drift, case)
        _check_without_values(scheme, packed, weight, case)
    for dtype in _DTYPES:
        _check_dtype(scheme, dtype)
    _check_refusals(scheme)
    packed = scheme.quantize(_matrix())
    _check_storage(packed)
    _check_rows(packed)
    check_product(packed)


def require(condition: bool, message: str) -> None:
    """Raise an AssertionError that says what is broken, unless the condition holds."""
    if not condition:
        raise AssertionError(message)


# --- the scheme as a value -----------------------------------------------------------------------


def _check_value(scheme: Scheme) -> None:
    kind = type(scheme)
    require(
        isinstance(scheme, Scheme), f"`scheme` must be an object of a subclass of bedstone.quant.Scheme: {scheme!r}."
    )
    name: Any = getattr(scheme, "name", None)
    sound = isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None
    require(sound, f"`name` (={name!r}) must be lower-case letters, digits and _.")
    own = "__dataclass_params__" in vars(kind)  # otherwise options that the class adds are no fields
    require(own and vars(kind)["__dataclass_params__"].frozen, f"{kind.__name__} must be a frozen dataclass itself.")
    require(
        schemes.get(name, None) is kind,
        f"{kind.__name__} must be registered as {name!r}, or files cannot name it: an entry point in bedstone.quantizers, "
        "or `schemes.register`.",
    )
    require(
        hash(scheme) == hash(dataclasses.replace(scheme)), f"{kind.__name__} must have a hash of its options alone."
    )
    again = scheme_from_dict(json.loads(json.dumps(scheme.to_dict())))
    require(again == scheme, f"The options must survive JSON: {scheme!r} came back as {again!r}. Use plain values.")


# --- packing and unpacking -----------------------------------------------------------------------


def _matrix() -> torch.Tensor:
    return torch.randn(64, 256, generator=torch.Generator().manual_seed(0)) * 0.02


def _weights() -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Yield weights by what is special about them, and whether a scheme may refuse them: odd shapes, and magnitudes near the end."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))

    matrix, huge = _matrix(), 0.99 * torch.finfo(torch.float32).max
    gap, outlier = matrix.clone(), matrix.clone()
    gap[2], outlier[1, 5] = 0.0, 1e4
    yield "a matrix", matrix, False
    yield "zeros", torch.zeros_like(matrix), False
    yield "a row of zeros among others", gap, False
    yield "a constant", torch.full_like(matrix, -0.3), False
    yield "an outlier", outlier, False
    yield "subnormal numbers", matrix * 1e-38, False
    yield "tiny numbers", matrix * 1e-30, False
    yield "huge numbers", matrix.clamp(-0.06, 0.06) / 0.06 * huge, True
    yield "a huge constant", torch.full_like(matrix, huge), True
    yield "a transposed matrix", normal(256, 64).t(), False
    yield "every other row", normal(128, 256)[::2], False
    yield "a single element", torch.full((1, 1), 0.7), True
    yield "an odd number of columns", normal(3, 37), True
    yield "a partial last block", normal(5, 300), True
    yield "a vector", normal(130), True
    yield "three dimensions", normal(2, 3, 40), True
    yield "no rows", normal(0, 8), True
    yield "no columns", normal(4, 0), True


def _packed(scheme: Scheme, weight: torch.Tensor, case: str, may_refuse: bool) -> QuantizedTensor | None:
    """Return the weight packed, or `None` when the scheme refuses it and may."""
    shape = tuple(weight.shape)
    try:
        parts: Any = scheme.checked_parts(weight)
    except QuantizationError as error:
        if may_refuse:
            return None
        raise AssertionError(f"{scheme.name} refuses {case} (shape {shape}, {weight.dtype}): {error}") from error
    except Exception as error:
        message = f"Packing {case} (shape {shape}) failed with {type(error).__name__}: {error}"
        remedy = "Refuse in `check` what cannot be packed, with a QuantizationError."
        raise AssertionError(f"{message}. {remedy}") from error
    require(isinstance(parts, Mapping) and bool(parts), f"`pack` must return parts by name, for {case} not {parts!r}.")
    return scheme.quantize(weight)


def _check_parts(packed: QuantizedTensor, weight: torch.Tensor, case: str) -> None:
    parts = packed.scheme.pack(weight)
    own = weight.untyped_storage().data_ptr()
    for name, part in parts.items():
        where = f"The part {name!r} of {case}"
        require(isinstance(name, str) and name.isidentifier(), f"The name of a part (={name!r}) must be an identifier.")
        require(type(part) is torch.Tensor, f"{where} must be a plain tensor, not a {type(part).__name__}.")
        require(not part.requires_grad, f"{where} must not require a gradient.")
        storage = part.untyped_storage()
        held = storage.nbytes()
        require(
            held == part.nbytes,
            f"{where} keeps {held:,} bytes alive to use {part.nbytes:,}; clone what is a slice of something larger.",
        )
        shared = bool(part.numel()) and storage.data_ptr() == own
        require(not shared, f"{where} shares memory with the weight; a change of one would change the other.")
    total = sum(part.nbytes for part in parts.values())
    require(
        packed.packed_bytes == total, f"`packed_bytes` (={packed.packed_bytes}) must be {total}, the sum of the parts."
    )


def _check_again(scheme: Scheme, packed: QuantizedTensor, weight: torch.Tensor, case: str) -> None:
    before = weight.clone()
    parts = scheme.pack(weight)
    require(torch.equal(weight, before), f"`pack` changed the weight that it was given, {case}.")
    same = list(parts) == list(packed.parts) and all(_equal(part, packed.parts[name]) for name, part in parts.items())
    require(same, f"`pack` must be a function of the weight: a second call gave other parts of {case}.")


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    alike = (first.shape, first.dtype) == (second.shape, second.dtype)
    return alike and torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))


def _check_error(scheme: Scheme, packed: QuantizedTensor, weight: torch.Tensor, bound: Bound, case: str) -> None:
    dense = scheme.unpack(packed.parts, weight.shape, torch.float32)
    require(type(dense) is torch.Tensor, f"`unpack` must return a plain tensor, not a {type(dense).__name__}.")
    found, wanted = (tuple(dense.shape), dense.dtype), (tuple(weight.shape), torch.float32)
    require(found == wanted, f"`unpack` returned {found} instead of {wanted} for {case}.")
    require(bool(torch.isfinite(dense).all()), f"`unpack` returned values that are not finite for {case}.")
    error = (dense.double() - weight.double()).abs()
    if not weight.numel():
        return
    allowed = bound(weight) if callable(bound) else bound * weight.abs().amax()
    excess = error - allowed.double() * _ROUNDING - _TINY
    if float(excess.max()) > 0:
        place = tuple(int(i) for i in torch.unravel_index(excess.argmax(), excess.shape))
        limit = float(allowed.expand(weight.shape)[place])
        message = (
            f"{case}: the element at {place} is {float(weight[place]):.6g} and came back as {float(dense[place]):.6g}"
        )
        raise AssertionError(f"{message}, an error of {float(error[place]):.3g}; the bound is {limit:.3g}.")
    exact = case != "zeros" or not bool(dense.any())
    require(exact, "A weight of zeros must come back as zeros.")


def _check_drift(scheme: Scheme, packed: QuantizedTensor, drift: float, case: str) -> None:
    once = packed.dequantize().double()
    again = _packed(scheme, packed.dequantize(), f"{case}, unpacked,", may_refuse=True)
    if again is None or not once.numel():
        return
    moved, largest = float((again.dequantize().double() - once).abs().max()), float(once.abs().max())
    if moved > drift * largest + _TINY:
        message = f"Packing {case} again after unpacking it moved an element by {moved / largest:.3g} of the largest magnitude"
        raise AssertionError(f"{message}; `drift` allows {drift:.3g}.")


def _check_without_values(scheme: Scheme, packed: QuantizedTensor, weight: torch.Tensor, case: str) -> None:
    wanted = {name: (tuple(part.shape), part.dtype) for name, part in packed.parts.items()}
    with FakeTensorMode() as mode:
        fake = scheme.pack(mode.from_tensor(weight))
        dense = scheme.unpack(fake, weight.shape, torch.bfloat16)
    for kind, parts in (("a fake tensor", fake), ("the meta device", scheme.pack(weight.to("meta")))):
        found = {name: (tuple(part.shape), part.dtype) for name, part in parts.items()}
        require(found == wanted, f"On {kind} `pack` gives {found} for {case}, with values {wanted}.")
    found = (tuple(dense.shape), dense.dtype)
    require(found == (tuple(weight.shape), torch.bfloat16), f"On a fake tensor `unpack` gives {found} for {case}.")


def _check_dtype(scheme: Scheme, dtype: torch.dtype) -> None:
    weight = _matrix().to(dtype)
    packed = _packed(scheme, weight, f"a weight of {dtype}", may_refuse=False)
    assert packed is not None
    _check_parts(packed, weight, f"a weight of {dtype}")
    from_float = scheme.quantize(weight.float())
    same = all(_equal(part, from_float.parts[name]) for name, part in packed.parts.items())
    require(same, f"A weight of {dtype} must be packed as the same values in float32.")
    dense, rounded = packed.dequantize(), packed.dequantize(torch.float32).to(dtype)
    require(dense.dtype is dtype, f"`unpack` returned {dense.dtype} where {dtype} was asked for.")
    require(_equal(dense, rounded), f"`unpack` into {dtype} must be float32 rounded once.")


# --- what is refused, stored, cut ----------------------------------------------------------------


def _check_refusals(scheme: Scheme) -> None:
    for value in (float("nan"), float("inf"), float("-inf")):
        weight = _matrix()
        weight[1, 2] = value
        error = _refused(scheme, weight, NonFiniteWeightError, f"a weight with {value}")
        position = getattr(error, "position", None)
        require(position == (1, 2), f"The error about {value} at (1, 2) must say so; its `position` is {position!r}.")
    _refused(scheme, torch.ones(64, 256, dtype=torch.int64), QuantizationError, "a weight of int64")
    _refused(scheme, torch.tensor(1.0), DimensionMismatchError, "a weight without dimensions")


def _refused(scheme: Scheme, weight: torch.Tensor, kind: type[CoreError], what: str) -> Exception:
    wanted = f"{what} must be refused with a {kind.__name__}; call `super().check` first in a `check` of your own"
    try:
        scheme.quantize(weight)
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"{wanted}. It was a {type(error).__name__}: {error}") from error
    raise AssertionError(f"{wanted}. It was packed.")


def _check_storage(packed: QuantizedTensor) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": packed}, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)["weight"]
    for way, other in (("torch.save and torch.load", loaded), ("deepcopy", copy.deepcopy(packed))):
        same = other.scheme == packed.scheme and all(_equal(part, other.parts[n]) for n, part in packed.parts.items())
        require(same, f"{way} must give the same scheme and parts back.")


def _check_rows(packed: QuantizedTensor) -> None:
    shape = tuple(packed.shape)
    try:
        parts = packed.scheme.slice_rows(packed.parts, shape, 16, 32)
    except QuantizationError:  # it cannot be cut; the weight stays whole on each device
        return
    rows = packed.scheme.unpack(parts, (16, shape[1]), torch.float32)
    require(
        torch.equal(rows, packed.dequantize()[16:32]), "`slice_rows(16, 32)` must unpack to these rows, bit for bit."
    )
    for name, part in parts.items():
        views = part.untyped_storage().data_ptr() == packed.parts[name].untyped_storage().data_ptr()
        require(views, f"`slice_rows` must return views; its part {name!r} is a copy.")
