"""The environment variables that choose a device, read strictly: what is set counts, and what is wrong is said.

Four prefixes are read, newest first. The first prefix with a variable that is set decides alone; an empty value counts
as not set. Inside a prefix a true `FORCE_CPU` beats `CUDA_DEVICE`, and a false one alone means `auto`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bedstone.core.errors import InvalidConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIXES = ("BEDSTONE_", "RUST_AI_", "AXOLOTL_", "VSA_OPTIM_")
"""The prefixes in the order in which they are asked."""

LEGACY_PREFIXES = ("AXOLOTL_", "VSA_OPTIM_")
"""The prefixes that still work and warn."""

_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_DEVICE = re.compile(r"\d{1,9}|(GPU|MIG)-[0-9A-Za-z/-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the environment asks for: a device, and the variable that says so."""

    device: str
    variable: str

    @property
    def legacy(self) -> bool:
        """Whether the variable's name is an old one."""
        return self.variable.startswith(LEGACY_PREFIXES)


def read_wish(environ: Mapping[str, str]) -> Wish | None:
    """Return the device that the environment asks for, `None` when no variable is set.

    Args:
        environ: Names and values, usually `os.environ`.

    Raises:
        InvalidConfigError: A value of the deciding prefix is not what its variable takes; names both.

    >>> read_wish({"BEDSTONE_CUDA_DEVICE": "1", "RUST_AI_FORCE_CPU": "1"})
    Wish(device='cuda:1', variable='BEDSTONE_CUDA_DEVICE')
    >>> read_wish({"BEDSTONE_FORCE_CPU": "maybe"})
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: The environment variable BEDSTONE_FORCE_CPU (='maybe') must be one of 1, \
true, yes, on, 0, false, no, off. Correct or unset it.
    """
    for prefix in PREFIXES:
        names = f"{prefix}FORCE_CPU", f"{prefix}CUDA_DEVICE"
        flag, device = (environ.get(name, "") for name in names)
        if flag or device:
            return _decide(names, flag, device)
    return None


def _decide(names: tuple[str, str], flag: str, device: str) -> Wish:
    problems: list[Problem] = []
    if flag and flag.lower() not in _FLAGS:
        problems.append(Problem(names[0], f"(={flag!r}) must be one of {', '.join(_FLAGS)}.", flag))
    if device and _DEVICE.fullmatch(device) is None:
        rule = "must be a number such as 0, or a UUID that begins with GPU- or MIG-."
        problems.append(Problem(names[1], f"(={device!r}) {rule}", device))
    if problems:
        raise _refusal(problems)
    if _FLAGS.get(flag.lower(), False):
        return Wish("cpu", names[0])
    number = str(int(device)) if device.isdigit() else device
    return Wish(f"cuda:{number}", names[1]) if device else Wish("auto", names[0])


def _refusal(problems: list[Problem]) -> InvalidConfigError:
    said = "\n  ".join(f"The environment variable {problem.path} {problem.message}" for problem in problems)
    first = problems[0]
    return InvalidConfigError(
        said, argument=first.path, value=first.value, problems=problems, remedy="Correct or unset it."
    )
