"""`get_device`: decide once, say it once, then answer from a dictionary.

The first call with a wish asks the backends (milliseconds) and every further one is a look-up. A forked child asks again,
since a CUDA device of its parent is not usable there, but does not repeat what the parent said.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import torch

from bedstone.core.device.candidates import backend_names, candidate_rows
from bedstone.core.device.choice import Choice, choose
from bedstone.core.device.config import DeviceConfig
from bedstone.core.device.cpu import cpu_row
from bedstone.core.device.fallback import Said, warn_fallback
from bedstone.core.device.report import DeviceReport
from bedstone.core.errors import DeviceNotAvailableError, InvalidConfigError
from bedstone.core.events import DeviceSelected, emit
from bedstone.core.torch_errors import parse_device

if TYPE_CHECKING:
    from bedstone.core.device.report import DeviceRow

DeviceWish = DeviceConfig | str | torch.device | None
"""What `get_device` takes; `None` is what the environment asks for."""

_devices: dict[DeviceWish, torch.device] = {}  # one dictionary look-up or assignment needs no lock
_said = Said()
_CPU_CHOSEN, _FELL_BACK = "cpu_chosen", "fell_back"


def get_device(config: DeviceWish = None, *, refresh: bool = False) -> torch.device:
    """Return the device that a wish comes to on this machine, and say once what was chosen and why.

    Args:
        config: The wish, or its `device` as text. `None` is `DeviceConfig.from_env()`, read once a process.
        refresh: Read the environment and the machine again.

    Returns:
        The device, with its number where its backend has numbers.

    Raises:
        DeviceNotAvailableError: The wish is explicit and cannot be met; carries `reason`, `count`, `mask`, `source`.
        InvalidConfigError: The wish or an environment variable is not valid.

    Warns:
        CpuFallbackWarning: `auto` came to the CPU; once a process, package and reason.

    >>> get_device("cpu")
    device(type='cpu')
    """
    try:
        known = None if refresh else _devices.get(config)
    except TypeError:  # what cannot be a key is no wish either; `_as_config` says so
        known = None
    return _select(config, refresh=refresh) if known is None else known


def device_report(config: DeviceWish = None) -> DeviceReport:
    """Return a row for every candidate and what the wish would come to; selects, says and initialises nothing.

    Args:
        config: As for `get_device`.

    Raises:
        InvalidConfigError: The wish or an environment variable is not valid.

    >>> print(device_report("cpu").reason)
    The CPU was chosen (from argument).
    """
    wish = _as_config(config)
    rows = _accelerator_rows()
    asked = [row for row in rows if wish.device == "auto" or row.backend == wish.backend]
    try:
        choice = choose(wish, asked)
        device, reason = torch.device(choice.device), choice.reason
    except DeviceNotAvailableError as error:
        device, reason = None, str(error)
    return DeviceReport((*rows, cpu_row()), wish.device, wish.source, device, reason)


def warn_if_cpu(device: torch.device | str, package: str = "bedstone") -> None:
    """Warn once a process, package and reason when `device` is the CPU and nobody chose it.

    The CPU counts as chosen when the environment chooses it, when an accelerator could have been had, or when this
    process chose it through `get_device` and never fell back.

    Args:
        device: The device in use.
        package: Who uses it; the warning begins with it.

    Raises:
        InvalidConfigError: `device` names no device, or an environment variable is not valid.

    >>> warn_if_cpu("cuda:0", "my_package")
    """
    if parse_device(device).type != "cpu" or _environment().force_cpu:
        return
    if _CPU_CHOSEN in _said and _FELL_BACK not in _said:
        return
    _watch_forks()
    cause = _automatic_cause()
    if cause is not None:
        warn_fallback(_said, package, cause)


def _select(wish: DeviceWish, *, refresh: bool) -> torch.device:
    _watch_forks()
    if refresh:
        _environment.cache_clear()
        _automatic_cause.cache_clear()
        _devices.clear()
    config = _as_config(wish)
    choice = _decide(config)
    _say(config, choice)
    device = torch.device(choice.device)
    _devices[wish] = device  # last: what could not be said is tried again by the next call
    return device


def _as_config(wish: DeviceWish) -> DeviceConfig:
    if wish is None:
        return _environment()
    if isinstance(wish, (str, torch.device)):
        return DeviceConfig(wish)
    if isinstance(wish, DeviceConfig):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        return wish
    message = f"`config` (={wish!r}) must be a DeviceConfig, a text such as 'cuda:1', a torch.device or None."
    raise InvalidConfigError(message, argument="config", value=wish)


def _decide(config: DeviceConfig) -> Choice:
    if config.device == "cpu":
        return choose(config, ())
    return choose(config, _accelerator_rows() if config.device == "auto" else candidate_rows(config.backend))


def _accelerator_rows() -> tuple[DeviceRow, ...]:
    return tuple(row for name in backend_names() for row in candidate_rows(name))


def _say(config: DeviceConfig, choice: Choice) -> None:
    if config.force_cpu:
        _said.claim(_CPU_CHOSEN)
    if choice.cause is not None:
        _said.claim(_FELL_BACK)
        warn_fallback(_said, config.package, choice.cause)
    if _said.claim((config, choice.device)):
        emit(DeviceSelected(device=choice.device, requested=config.device, source=config.source, reason=choice.reason))


@functools.cache
def _environment() -> DeviceConfig:
    return DeviceConfig.from_env()


@functools.cache
def _automatic_cause() -> DeviceRow | None:
    return choose(DeviceConfig(), _accelerator_rows()).cause


@functools.cache
def _watch_forks() -> None:
    # At the first selection, not at import: an import registers nothing.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    _said.renew_lock()
    _devices.clear()
    _automatic_cause.cache_clear()
