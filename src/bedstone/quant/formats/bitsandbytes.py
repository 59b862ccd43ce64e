"""bitsandbytes' checkpoints in and out: NF4 and FP4, with and without double quantization, and int8; bit for bit.

A 4-bit weight `w` of n elements:

    w                                     uint8 [ceil(n / 2), 1]; other storage types are the same bytes seen as them
    w.absmax                              float32 [blocks]; uint8 with double quantization
    w.quant_map                           float32 [16], the table
    w.quant_state.bitsandbytes__nf4       uint8, the bytes of a JSON: quant_type, blocksize, dtype, shape, nested_...
    w.nested_absmax, w.nested_quant_map   float32, only with double quantization

An int8 weight `layer.weight` is int8 [rows, columns] beside `layer.SCB`, float32 [rows], and `layer.weight_format`, which is 0.
bitsandbytes is not needed for any of this: its keys are written here, and the tests open them with the installed package.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import InvalidConfigError
from bedstone.kernels.fourbit.reference import NESTED_BLOCK, dynamic_table
from bedstone.kernels.layouts import CODE_TABLES, code_table
from bedstone.quant.formats.errors import WeightFormatError
from bedstone.quant.formats.flat import expected_parts
from bedstone.quant.fourbit import FP4, NF4
from bedstone.quant.int8 import Int8
from bedstone.quant.tensor import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMAT = "bitsandbytes"
_STATE = re.compile(r"(?P<weight>.+)\.quant_state\.bitsandbytes__(?P<type>\w+)")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SCHEMES = {"nf4": NF4, "fp4": FP4}
_ROW_MAJOR = 0  # of `weight_format`; the others are layouts of earlier GPUs
_DAMAGED = "The checkpoint is damaged or was written by another program; get it again."


def to_bitsandbytes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict in bitsandbytes' keys, sharing memory with `state`.

    Args:
        state: Tensors by name; packed ones are NF4, FP4 or int8 with a scale a row. The others pass unchanged.

    Raises:
        WeightFormatError: A packed weight that bitsandbytes has no form for, named: another scheme, a dtype other than
            float32, float16 and bfloat16, or an int8 weight that is not called `weight`.

    >>> import bedstone as bs
    >>> tensors = to_bitsandbytes({"up.weight": bs.quantize(torch.ones(8, 64), "nf4")})
    >>> {name: tuple(tensor.shape) for name, tensor in tensors.items() if "quant_state" not in name}
    {'up.weight': (256, 1), 'up.weight.absmax': (8,), 'up.weight.quant_map': (16,)}
    """
    made: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        made.update(_written(name, tensor) if isinstance(tensor, QuantizedTensor) else {name: tensor})
    return made


def from_bitsandbytes(
    state: Mapping[str, torch.Tensor], *, int8_dtype: torch.dtype = torch.float16
) -> dict[str, torch.Tensor]:
    """Return a state dict whose bitsandbytes weights are packed weights of ours, sharing memory with `state`.

    Args:
        state: Tensors by name, as bitsandbytes' modules and transformers save them.
        int8_dtype: The dtype of int8 weights, which their keys do not tell; bitsandbytes makes them from float16.

    Returns:
        Tensors by name; codes and scales are the same bits, nothing is quantized again.

    Raises:
        WeightFormatError: A weight that is damaged or not of these forms, named: a table or block size that is not ours, a part
            that is missing or of another shape or dtype, a layout of an earlier GPU.

    >>> import bedstone as bs
    >>> state = to_bitsandbytes({"up.weight": bs.quantize(torch.ones(8, 64), "nf4")})
    >>> from_bitsandbytes(state)
    {'up.weight': QuantizedTensor(nf4, shape=(8, 64), dtype=torch.float32, device=cpu, 4.5 bits a weight)}
    """
    used: set[str] = set()
    made: dict[str, torch.Tensor] = {}
    for key in state:
        if found := _STATE.fullmatch(key):
            weight, names = _read_4bit(state, key, found["weight"], found["type"])
        elif key.endswith("SCB"):
            weight, names = _read_int8(state, key, int8_dtype)
        else:
            continue
        made[names[0]] = weight
        used.update(names)
    _refuse_orphans(state, used)
    return {name: made.get(name, tensor) for name, tensor in state.items() if name in made or name not in used}


# --- out -----------------------------------------------------------------------------------------


def _written(name: str, weight: QuantizedTensor) -> dict[str, torch.Tensor]:
    scheme = weight.scheme
    if isinstance(scheme, (NF4, FP4)):
        return _written_4bit(name, weight, scheme)
    if isinstance(scheme, Int8) and scheme.granularity == "row":
        return _written_int8(name, weight)
    message = f"bitsandbytes has no form for {name!r}, which is packed as {scheme}."
    raise _fault(name, message, "Pack it as nf4, fp4 or int8 with a scale a row, or dequantize it.")


def _written_4bit(name: str, weight: QuantizedTensor, scheme: NF4 | FP4) -> dict[str, torch.Tensor]:
    dtype = str(weight.dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise _fault(name, f"bitsandbytes has no {dtype} weights, and {name!r} is one.", "Convert it to float32 first.")
    parts, device = weight.parts, weight.device
    state: dict[str, Any] = {
        "quant_type": scheme.name,
        "blocksize": scheme.block_size,
        "dtype": dtype,
        "shape": list(weight.shape),
    }
    tensors = {
        name: parts["packed"].view(-1, 1),
        f"{name}.absmax": parts["absmax"],
        f"{name}.quant_map": code_table(scheme.name, device) + 0.0,  # a copy; their table of FP4 has no negative zero
    }
    if scheme.double_quant:
        offset = parts["offset"].item()
        state |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": offset}
        tensors[f"{name}.nested_absmax"] = parts["nested_absmax"]
        tensors[f"{name}.nested_quant_map"] = dynamic_table(device).clone()
    text = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)
    tensors[f"{name}.quant_state.bitsandbytes__{scheme.name}"] = text.to(device)
    return tensors


def _written_int8(name: str, weight: QuantizedTensor) -> dict[str, torch.Tensor]:
    prefix = _prefix_of(name)
    if prefix is None or weight.ndim != 2:  # noqa: PLR2004
        message = f"bitsandbytes keeps int8 in the `weight` of a linear layer, and {name!r} of shape {tuple(weight.shape)} is none."
        raise _fault(name, message, "Dequantize it.")
    return {
        name: weight.parts["codes"],
        f"{prefix}SCB": weight.parts["absmax"].view(-1),
        f"{prefix}weight_format": torch.tensor(_ROW_MAJOR, dtype=torch.uint8, device=weight.device),
    }


# --- in ------------------------------------------------------------------------------------------


def _read_4bit(
    state: Mapping[str, torch.Tensor], key: str, name: str, quant_type: str
) -> tuple[QuantizedTensor, list[str]]:
    described = _description(name, state[key])
    scheme = _scheme(name, quant_type, described)
    shape, dtype = _shape_and_dtype(name, described)
    tables = {"quant_map": code_table(scheme.name, torch.device("cpu"))}
    named = {"packed": name, "absmax": f"{name}.absmax"}
    if scheme.double_quant:
        tables["nested_quant_map"] = dynamic_table(torch.device("cpu"))
        named["nested_absmax"] = f"{name}.nested_absmax"
    for table, ours in tables.items():
        _check_table(name, table, _get(state, name, f"{name}.{table}"), ours)
    parts = {part: _get(state, name, source) for part, source in named.items()}
    parts["packed"] = _bytes(parts["packed"])
    if scheme.double_quant:
        parts["offset"] = torch.tensor(float(described["nested_offset"]), device=parts["packed"].device)
    _check_parts(name, scheme, parts, shape, dtype)
    return QuantizedTensor(parts, scheme, shape, dtype), [*named.values(), *(f"{name}.{t}" for t in tables), key]


def _read_int8(state: Mapping[str, torch.Tensor], key: str, dtype: torch.dtype) -> tuple[QuantizedTensor, list[str]]:
    prefix = key.removesuffix("SCB")
    name, layout = f"{prefix}weight", f"{prefix}weight_format"
    codes, scale = _get(state, name, name), state[key]
    if layout in state and int(state[layout].item()) != _ROW_MAJOR:
        message = f"{name!r} has the weight format {int(state[layout].item())}, a layout of earlier GPUs; here it is 0, row after row."
        raise _fault(name, message, "Load it with the bitsandbytes that wrote it, and save it again.")
    parts = {"codes": codes, "absmax": scale.reshape(-1, 1)}
    _check_parts(name, Int8(), parts, tuple(codes.shape), dtype)
    return QuantizedTensor(parts, Int8(), codes.shape, dtype), [name, key, *([layout] if layout in state else [])]


def _description(name: str, tensor: torch.Tensor) -> dict[str, Any]:
    try:
        described = json.loads(bytes(tensor.cpu().tolist()))
        if not isinstance(described, dict):
            raise TypeError(f"it is a {type(described).__name__}")  # noqa: TRY301 - told with the others
    except (ValueError, TypeError) as error:
        raise _fault(name, f"The quant_state of {name!r} is no JSON object: {error}.") from error
    keys = {"quant_type", "blocksize", "dtype", "shape"}
    if any(key.startswith("nested_") for key in described):
        keys |= {"nested_blocksize", "nested_dtype", "nested_offset"}
    if missing := sorted(keys - set(described)):
        raise _fault(name, f"The quant_state of {name!r} has no {missing[0]!r}.")
    return described


def _scheme(name: str, quant_type: str, described: dict[str, Any]) -> NF4 | FP4:
    said = described["quant_type"]
    if quant_type not in _SCHEMES or said != quant_type:
        message = f"{name!r} has the key of quant_type {quant_type!r} and says {said!r}; both must be nf4 or fp4."
        raise _fault(name, message)
    nested = "nested_blocksize" in described
    if nested and (described["nested_blocksize"], described["nested_dtype"]) != (NESTED_BLOCK, "float32"):
        message = (
            f"The double quantization of {name!r} has blocks of {described['nested_blocksize']} in {described['nested_dtype']}; "
            f"here they are of {NESTED_BLOCK} in float32."
        )
        raise _fault(name, message, "Dequantize it with bitsandbytes and pack it anew.")
    try:
        return _SCHEMES[quant_type](block_size=described["blocksize"], double_quant=nested)
    except InvalidConfigError as error:
        raise _fault(name, f"{name!r} is not of a form that is known here: {error}") from error


def _shape_and_dtype(name: str, described: dict[str, Any]) -> tuple[tuple[int, ...], torch.dtype]:
    shape, dtype = described["shape"], described["dtype"]
    if not isinstance(shape, list) or not shape or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise _fault(name, f"The quant_state of {name!r} has the shape {shape!r}, which is none.")
    if dtype not in _DTYPES:
        raise _fault(name, f"The quant_state of {name!r} has the dtype {dtype!r}; known are {', '.join(_DTYPES)}.")
    return tuple(shape), _DTYPES[dtype]


def _check_table(name: str, table: str, theirs: torch.Tensor, ours: torch.Tensor) -> None:
    if not torch.equal(theirs.cpu().float(), ours):
        kinds = f"that of {' or '.join(CODE_TABLES)}" if table == "quant_map" else "the dynamic 8-bit table"
        message = f"The {table} of {name!r} is not {kinds}, so its codes mean other values."
        raise _fault(name, message, "Dequantize it with bitsandbytes and pack it anew.")


def _check_parts(
    name: str, scheme: NF4 | FP4 | Int8, parts: dict[str, torch.Tensor], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    for part, expected in expected_parts(scheme, shape, dtype).items():
        actual = parts[part]
        if (actual.shape, actual.dtype) != (expected.shape, expected.dtype):
            message = (
                f"The {part} of {name!r} is {actual.dtype} {tuple(actual.shape)}; a {scheme.name} weight of shape {shape} "
                f"has {expected.dtype} {tuple(expected.shape)}."
            )
            raise _fault(name, message, expected=tuple(expected.shape), actual=tuple(actual.shape))


def _bytes(stored: torch.Tensor) -> torch.Tensor:
    """The packed codes, whatever type of storage (`quant_storage`) their bytes are seen as."""
    flat = stored.detach().reshape(-1)
    return flat if flat.dtype is torch.uint8 else flat.view(torch.uint8)


def _get(state: Mapping[str, torch.Tensor], name: str, key: str) -> torch.Tensor:
    if key not in state:
        raise _fault(name, f"{key!r} is missing, which the packed weight {name!r} needs.", part=key)
    return state[key]


def _refuse_orphans(state: Mapping[str, torch.Tensor], used: set[str]) -> None:
    for key in state:
        if key.endswith(".quant_map") and key not in used:
            name = key.removesuffix(".quant_map")
            raise _fault(name, f"{name + '.quant_state.bitsandbytes__...'!r} is missing, which {key!r} belongs to.")


def _prefix_of(name: str) -> str | None:
    return name.removesuffix("weight") if name == "weight" or name.endswith(".weight") else None


def _fault(name: str, message: str, remedy: str = _DAMAGED, **facts: Any) -> WeightFormatError:
    return WeightFormatError(message, format=_FORMAT, weight=name, remedy=remedy, **facts)
