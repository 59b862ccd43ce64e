"""What a caller wants: one frozen value with one truth, the text `device`.

`auto` may fall back to the CPU, with one warning; everything else is explicit and fails when it cannot be had. The
document's `cuda_device` and `force_cpu` are other ways to write `device`, never a second truth beside it.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.device.caller import outside_stacklevel
from bedstone.core.device.candidates import backend_names
from bedstone.core.device.environment import read_wish
from bedstone.core.errors import InvalidConfigError, Problem, nearest
from bedstone.core.protocols import ValidatableConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ALIASES = {"cpu:0": "cpu", "mps:0": "mps"}  # there is only one of each
_SYNTAX = re.compile(r"([a-z][a-z0-9_]*)(?::(0|[1-9][0-9]{0,8}|(?:GPU|MIG)-[0-9A-Za-z/-]+))?")


@dataclass(frozen=True, init=False)
class DeviceConfig(ValidatableConfig):
    """The wish for a device.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `cuda:GPU-<uuid>`, `cuda:MIG-<uuid>`, `xpu`, `xpu:0`, `mps`, or the
            name of a plug-in's backend, with or without a number. The beginning of a UUID suffices when it is unique.
            A `torch.device` is taken as its text.
        package: Who asks; warnings are given once a package and begin with it.
        min_free_bytes: A device counts only with at least so many bytes free, where that can be read; 0 or more.
        source: Where the wish comes from, named in errors and reports: `argument`, `default` or a variable's name.
            Not compared.
        cuda_device: Shorthand for `device=f"cuda:{cuda_device}"`; 0 or more.
        force_cpu: Shorthand for `device="cpu"`; wins over `cuda_device`.

    Raises:
        InvalidConfigError: A value cannot be, or `device` contradicts a shorthand; lists every problem.

    >>> DeviceConfig(cuda_device=1)
    DeviceConfig(device='cuda:1', package='bedstone', min_free_bytes=0, source='argument')
    >>> DeviceConfig(cuda_device=1, force_cpu=True).device
    'cpu'
    >>> DeviceConfig("cdua")
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: DeviceConfig has a problem:
      `device` (='cdua') names no device. Did you mean 'cuda'? Known: auto, cpu, cuda, xpu, mps; with a number: 'cuda:1'.
    """

    device: str = "auto"
    package: str = "bedstone"
    min_free_bytes: int = 0
    source: str = field(default="", compare=False)

    def __init__(
        self,
        device: str | torch.device = "auto",
        package: str = "bedstone",
        *,
        min_free_bytes: int = 0,
        source: str = "",
        cuda_device: int | None = None,
        force_cpu: bool = False,
    ) -> None:
        wish = str(device) if isinstance(device, torch.device) else device
        wish = _ALIASES.get(wish, wish) if isinstance(wish, str) else wish  # pyright: ignore[reportUnnecessaryIsInstance]
        short = "cpu" if force_cpu else "auto" if cuda_device is None else f"cuda:{cuda_device}"
        given = {"device": short if wish == "auto" else wish, "package": package, "min_free_bytes": min_free_bytes}
        for name, value in given.items():
            object.__setattr__(self, name, value)  # frozen: the only way in
        object.__setattr__(self, "source", _source(source, self.device))
        early = tuple(_shorthand_problems(wish, cuda_device, force_cpu=force_cpu))
        if early:
            raise InvalidConfigError(problems=early)
        self.validate()

    def __hash__(self) -> int:
        # The text alone: Python keeps its hash, so that a cached `get_device(config)` stays below 1 us. Inverted, since
        # the text is itself a key of that cache, and equal hashes would cost a comparison.
        return ~hash(self.device)

    def problems(self) -> Iterator[Problem]:
        """Yield every reason why this wish cannot be; looks at no hardware."""
        yield from _device_problems(self.device)
        if not isinstance(self.package, str) or not self.package:  # pyright: ignore[reportUnnecessaryIsInstance]
            yield Problem("package", f"(={self.package!r}) must be a text that is not empty.", self.package)
        if not _is_count(self.min_free_bytes):
            rule = f"(={self.min_free_bytes!r}) must be a whole number of bytes, 0 or more."
            yield Problem("min_free_bytes", rule, self.min_free_bytes)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, package: str = "bedstone") -> DeviceConfig:
        """Return what the environment asks for; `auto` when no variable is set. A variable that is set is explicit.

        The first prefix of `BEDSTONE_`, `RUST_AI_`, `AXOLOTL_` and `VSA_OPTIM_` under which `FORCE_CPU` or
        `CUDA_DEVICE` is set decides; the last two warn with `DeprecationWarning`. An empty value is not set.

        Args:
            environ: Names and values; `os.environ` by default.
            package: Who asks.

        Raises:
            InvalidConfigError: A value is not what its variable takes; names both.

        >>> DeviceConfig.from_env({"BEDSTONE_FORCE_CPU": "yes"})
        DeviceConfig(device='cpu', package='bedstone', min_free_bytes=0, source='BEDSTONE_FORCE_CPU')
        >>> DeviceConfig.from_env({}).source
        'default'
        """
        wish = read_wish(os.environ if environ is None else environ)
        if wish is None:
            return cls(package=package)
        if wish.legacy:
            new = "BEDSTONE_" + wish.variable.removeprefix("AXOLOTL_").removeprefix("VSA_OPTIM_")
            text = f"The environment variable {wish.variable} is an old name. Use {new} instead."
            warnings.warn(text, DeprecationWarning, stacklevel=outside_stacklevel())
        return cls(wish.device, package, source=wish.variable)

    @property
    def backend(self) -> str:
        """The part of `device` before the colon."""
        return self.device.partition(":")[0]

    @property
    def selector(self) -> str:
        """The part of `device` after the colon: a number, a UUID, or empty."""
        return self.device.partition(":")[2]

    @property
    def force_cpu(self) -> bool:
        """Whether the CPU was chosen."""
        return self.device == "cpu"

    @property
    def cuda_device(self) -> int | None:
        """The number of the CUDA device that was chosen; `None` when none was chosen by number."""
        return int(self.selector) if self.backend == "cuda" and self.selector.isdigit() else None


def _source(given: str, device: str) -> str:
    if device == "auto":
        return given or "default"
    # `dataclasses.replace` hands the old source on; a device that was named is no default any more.
    return "argument" if given in {"", "default"} else given


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shorthand_problems(wish: str, cuda_device: int | None, *, force_cpu: bool) -> Iterator[Problem]:
    if cuda_device is not None and not _is_count(cuda_device):
        yield Problem("cuda_device", f"(={cuda_device!r}) must be a whole number, 0 or more.", cuda_device)
    if not isinstance(force_cpu, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - "0" would count as true
        yield Problem("force_cpu", f"(={force_cpu!r}) must be True or False.", force_cpu)
    elif force_cpu and wish not in {"auto", "cpu"}:
        yield Problem("device", f"(={wish!r}) contradicts `force_cpu` (=True).", wish, remedy="Give one of them.")
    elif cuda_device is not None and not force_cpu and wish not in {"auto", f"cuda:{cuda_device}"}:
        rule = f"(={wish!r}) contradicts `cuda_device` (={cuda_device!r})."
        yield Problem("device", rule, wish, remedy="Give one of them.")


def _device_problems(device: Any) -> Iterator[Problem]:
    parts = _SYNTAX.fullmatch(device) if isinstance(device, str) else None
    if parts is None:
        rule = f"(={device!r}) must be a name, or a name and a number such as 'cuda:1', in lower case."
        yield Problem("device", rule, device)
        return
    name, selector = parts[1], parts[2]
    single = {"auto", "cpu", "mps"}
    if name in single and selector is not None:
        yield Problem("device", f"(={device!r}) takes no number: there is only one {name!r}.", device)
    elif selector is not None and name != "cuda" and not selector.isdigit():
        yield Problem("device", f"(={device!r}) names a UUID, which only 'cuda' takes.", device)
    elif (
        name not in single | {"cuda", "xpu"} and name not in backend_names()
    ):  # plug-ins are read only for a strange name
        yield Problem("device", f"(={device!r}) names no device. {_known(name)}", device)


def _known(name: str) -> str:
    known = ("auto", "cpu", *backend_names())
    close = nearest(name, known)
    hint = f"Did you mean {close!r}? " if close else ""
    return f"{hint}Known: {', '.join(known)}; with a number: 'cuda:1'."
