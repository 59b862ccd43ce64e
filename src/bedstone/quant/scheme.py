"""The contract of a quantization scheme: a frozen configuration that packs a weight into plain tensors, and unpacks them.

A scheme is written in two methods. `pack` turns a dense weight into named plain tensors ("parts": codes, scales), `unpack`
turns them back. Everything else follows: `quantize` and `dequantize` (the protocols of `core`), the tensor that lives in an
`nn.Linear`, its state dict, files, adapters. A scheme with a faster product than "unpack, then multiply" overrides `linear`.

    @schemes.register("mine")
    @dataclass(frozen=True)
    class Mine(Scheme):
        def pack(self, weight): ...
        def unpack(self, parts, shape, dtype): ...

Another package registers its class through an entry point of the group `bedstone.quantizers`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch._subclasses.fake_tensor import FakeTensor

from bedstone.core.errors import DimensionMismatchError, InvalidConfigError
from bedstone.core.protocols import ValidatableConfig
from bedstone.core.registry import Registry
from bedstone.quant.errors import NonFiniteWeightError, QuantizationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bedstone.core.errors import Problem
    from bedstone.quant.tensor import QuantizedTensor

Parts = Mapping[str, torch.Tensor]
"""The plain tensors that a packed weight consists of, by name."""


@dataclass(frozen=True)
class Scheme(ValidatableConfig):
    """A way to pack weights; a subclass is a frozen dataclass whose fields are its options.

    Attributes:
        name: What users call it; set by the class.
    """

    name: ClassVar[str]

    @abstractmethod
    def pack(self, weight: torch.Tensor) -> Parts:
        """Return the parts of a weight.

        Args:
            weight: Floating, finite, at least one dimension, any shape and strides; may be empty, fake or on the meta device.
        """

    @abstractmethod
    def unpack(self, parts: Parts, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return the dense weight.

        Args:
            parts: As `pack` returned them.
            shape: Of the weight.
            dtype: Of the result; rounded to it once, from float32.
        """

    def linear(self, x: torch.Tensor, parts: Parts, shape: Sequence[int], bias: torch.Tensor | None) -> torch.Tensor:
        """Return `x @ weight.T + bias`, differentiable in `x` and `bias`.

        Args:
            x: `[..., K]`, any floating dtype.
            parts: Of a weight `[N, K]`.
            shape: `(N, K)`.
            bias: `[N]` or None.

        Returns:
            `[..., N]` in the dtype of `x`.
        """
        from bedstone.quant.unpacked_linear import unpacked_linear

        return unpacked_linear(self, x, parts, shape, bias)

    def slice_rows(self, parts: Parts, shape: Sequence[int], start: int, stop: int) -> Parts:
        """Return the parts of rows `start` to `stop` as views, so that a weight can be cut for several devices.

        Raises:
            QuantizationError: The scheme cannot cut there; the message says where it can.
        """
        del parts, shape
        message = f"{self.name} cannot be cut into rows, here {start} to {stop}."
        raise QuantizationError(message, scheme=self.name, remedy="Keep the weight whole on each device.")

    def problems(self) -> Iterable[Problem]:
        """Yield what is wrong with the options; a scheme without rules has none."""
        return ()

    def quantize(self, tensor: torch.Tensor, device: torch.device | None = None) -> QuantizedTensor:
        """Return a weight packed.

        Args:
            tensor: Floating and finite, at least one dimension.
            device: Where the result must lie; `None` keeps the tensor's.

        Raises:
            QuantizationError: It is not floating point, not finite (`NonFiniteWeightError`, with the position), or so large that
                a scale leaves float32.
            DimensionMismatchError: It has no dimension.
        """
        from bedstone.quant.tensor import QuantizedTensor

        if isinstance(tensor, QuantizedTensor):
            tensor = tensor.dequantize()
        parts = self.checked_parts(tensor.detach())
        if device is not None:
            parts = {name: part.to(device) for name, part in parts.items()}
        return QuantizedTensor(parts, self, tensor.shape, tensor.dtype)

    def dequantize(self, quantized: QuantizedTensor, device: torch.device | None = None) -> torch.Tensor:
        """Return the dense weight in its own dtype.

        Args:
            quantized: What `quantize` returned.
            device: Where the result must lie; `None` keeps the weight's.
        """
        dense = quantized.dequantize()
        return dense if device is None else dense.to(device)

    def checked_parts(self, weight: torch.Tensor) -> Parts:
        """Return the parts of a weight, checked before and after: what `quantize` and every write to a packed weight go through.

        Args:
            weight: As for `quantize`.

        Raises:
            QuantizationError: As for `quantize`.
            DimensionMismatchError: As for `quantize`.
        """
        self.check(weight)
        parts = self.pack(weight)
        for name, part in parts.items():
            if part.dtype.is_floating_point and part.dtype.itemsize > 1 and _first_non_finite(part):
                message = f"{self.name} cannot hold this weight: `{name}`, computed from it, leaves float32."
                raise QuantizationError(message, scheme=self.name, part=name, remedy="Its magnitudes are too large.")
        return parts

    def check(self, tensor: torch.Tensor) -> None:
        """Refuse what the scheme cannot pack, before anything is changed.

        Override it, and call this one first, where a scheme needs more: whole blocks, two dimensions.

        Args:
            tensor: Any tensor; of a fake one or one on the meta device the values are not looked at.

        Raises:
            QuantizationError: As for `quantize`.
            DimensionMismatchError: As for `quantize`.
        """
        if not tensor.is_floating_point():
            message = f"{self.name} holds floating-point weights, not {tensor.dtype}."
            raise QuantizationError(message, scheme=self.name, dtype=tensor.dtype)
        if tensor.ndim == 0:
            raise DimensionMismatchError(expected="at least 1", actual=0, argument="weight")
        if position := _first_non_finite(tensor):
            raise NonFiniteWeightError(scheme=self.name, position=position, value=float(tensor.detach()[position]))

    def to_dict(self) -> dict[str, Any]:
        """Return name and options as JSON takes them; `scheme_from_dict` is the way back.

        >>> from bedstone.quant import NF4
        >>> NF4(block_size=128).to_dict()
        {'scheme': 'nf4', 'block_size': 128, 'double_quant': False}
        """
        return {"scheme": self.name, **asdict(self)}


schemes: Registry[type[Scheme]] = Registry("quantization scheme", "bedstone.quantizers")
"""Schemes by name; ours and those of installed plug-ins."""


def get_scheme(scheme: str | Scheme) -> Scheme:
    """Return a scheme as it is, or the one of a name with its defaults.

    Raises:
        UnknownNameError: No scheme has this name.
        PluginError: The plug-in of this name does not load.
        InvalidConfigError: What is registered or given is not a scheme.

    >>> from bedstone.quant import get_scheme  # with it come the schemes
    >>> get_scheme("nf4")
    NF4(block_size=64, double_quant=False)
    >>> get_scheme("nf5")
    Traceback (most recent call last):
    bedstone.core.errors.UnknownNameError: No quantization scheme is called 'nf5'. Did you mean 'nf4'? Known: fp4, fp8, \
int8, nf4, ternary.
    """
    if isinstance(scheme, Scheme):
        return scheme
    if not isinstance(scheme, str):
        message = f"`scheme` (={scheme!r}) must be a scheme or its name: {', '.join(schemes.names())}."
        raise InvalidConfigError(message, argument="scheme", value=scheme)
    return _class_of(scheme)()


def scheme_from_dict(values: Mapping[str, Any]) -> Scheme:
    """Return the scheme that `to_dict` described.

    Raises:
        InvalidConfigError: An option is unknown or its value is not allowed.
        UnknownNameError: No scheme has this name.

    >>> from bedstone.quant import scheme_from_dict
    >>> scheme_from_dict({"scheme": "int8", "granularity": "block", "block_size": 32})
    Int8(granularity='block', block_size=32)
    """
    options = dict(values)
    kind = _class_of(options.pop("scheme", ""))
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(options) - set(known)):
        message = f"The scheme {kind.name!r} has no option {unknown[0]!r}. It has: {', '.join(known) or 'none'}."
        raise InvalidConfigError(message, argument=unknown[0], value=options[unknown[0]])
    return kind(**options)


def _class_of(name: str) -> type[Scheme]:
    found: Any = schemes.get(name)
    if not (isinstance(found, type) and issubclass(found, Scheme)):
        message = f"The quantization scheme {name!r} is {found!r}, not a subclass of Scheme."
        raise InvalidConfigError(message, argument="scheme", value=name)
    return found


def largest_magnitude(tensor: torch.Tensor) -> float:
    """Return the largest magnitude, NaN if there is one; 0 of a tensor without values, such as one on the meta device.

    >>> largest_magnitude(torch.tensor([1.0, -3.0])), largest_magnitude(torch.ones(2, device="meta"))
    (3.0, 0)
    """
    if not tensor.numel() or tensor.device.type == "meta" or isinstance(tensor, FakeTensor):
        return 0
    values = tensor.detach()
    low, high = torch.aminmax(
        values if values.dtype.itemsize > 1 else values.float()
    )  # float8 has no minimum of its own
    return max(abs(float(low)), abs(float(high)))


def _first_non_finite(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """Return the index of the first value that float32 cannot hold, if any."""
    if largest_magnitude(tensor) <= torch.finfo(torch.float32).max:  # never true for NaN
        return None
    return tuple((~torch.isfinite(tensor.detach().float())).nonzero()[0].tolist())
