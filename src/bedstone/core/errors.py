"""Every failure that bedstone raises, as one tree.

    CoreError                        catch this one to catch them all
    ├── InvalidConfigError           ValueError           a value that cannot be; `problems` lists all of them
    ├── ShapeMismatchError           ValueError           sizes differ; `expected`, `actual`
    ├── DimensionMismatchError       ValueError           number of dimensions differs; `expected`, `actual`
    ├── DeviceNotAvailableError      RuntimeError         a device that cannot be had; `device`, `reason`
    ├── DeviceMismatchError          RuntimeError         a tensor lies elsewhere; `expected`, `actual`
    ├── OutOfMemoryError             torch.OutOfMemoryError, MemoryError    `requested_bytes`, `free_bytes`, ...
    ├── KernelError                  RuntimeError         a kernel failed; `op`, `implementation`, `shapes`
    ├── UnsupportedError             NotImplementedError  not offered here; `feature`
    ├── StorageError                 OSError              files; `path`, `errno`
    ├── FrameworkError               RuntimeError         an error of torch, wrapped; its cause is kept
    ├── UnknownNameError             LookupError          nothing has this name; `name`, `known`
    └── PluginError                  RuntimeError         an installed plug-in is broken; `group`, `name`

Each class also derives from the built-in that a caller expects, so `except ValueError` keeps working. The facts are
attributes, the message is built from them: thing, rule, value, and in `remedy` what to do next. A family of its own
(quantization, data, ...) subclasses `CoreError` beside its code; `bedstone.testing.check_error` proves the subclass.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from bedstone.core.json import json_value

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

# Told of every CoreError that is built; `core.events` sets it. A slot, since this file stands below the event stream.
_observer: Callable[[CoreError], None] | None = None


def observe_errors(observer: Callable[[CoreError], None] | None) -> None:
    """Have `observer` called with every `CoreError` when it is built, which in Python is where it is raised.

    Args:
        observer: A function of one error that does not raise; `None` stops observing.
    """
    global _observer  # noqa: PLW0603 - one process, one observer
    _observer = observer


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or `None` when none is close.

    >>> nearest("lroa", ["dora", "lora"])
    'lora'
    >>> nearest("zebra", ["dora", "lora"]) is None
    True
    """
    by_folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(name.casefold(), list(by_folded), n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


class CoreError(Exception):
    """The base of every failure that bedstone raises.

    Args:
        message: One or more full sentences: the thing, the rule, the value.
        remedy: What to do next, a full sentence; shown after the message.

    Attributes:
        code: A stable name of the class for programs and logs.
        message: As given.
        remedy: As given, or empty.

    >>> error = CoreError("The well is dry.", remedy="Dig deeper.")
    >>> str(error)
    'The well is dry. Dig deeper.'
    >>> error.to_dict()
    {'code': 'core', 'message': 'The well is dry.', 'remedy': 'Dig deeper.'}
    """

    code: ClassVar[str] = "core"

    def __init__(self, message: str, *, remedy: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.__dict__.update(facts)
        if _observer is not None:
            _observer(self)

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Rebuilt without __init__: its arguments are not in `args`, and a copy is not a second raise.
        return _rebuild, (type(self), self.args, self.__dict__)

    @property
    def context(self) -> dict[str, Any]:
        """The facts of this failure by name, without message and remedy."""
        return {k: v for k, v in self.__dict__.items() if k not in {"message", "remedy"} and not k.startswith("_")}

    def to_dict(self) -> dict[str, Any]:
        """Return code, message, remedy and facts as one flat dictionary; facts that JSON lacks become text."""
        facts = {name: json_value(value) for name, value in self.context.items()}
        return {"code": self.code, "message": self.message, "remedy": self.remedy, **facts}


def _rebuild(cls: type[CoreError], args: tuple[Any, ...], facts: dict[str, Any]) -> CoreError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a configuration.

    Args:
        path: Where, as field path: `lora_r`, `datasets[0].path`.
        message: What is wrong, with the rule and the value.
        value: The value as found.
        line: Line in the file it was read from, counted from 1.
        remedy: What to do next.

    >>> print(Problem("lora_r", "(=0) must be at least 1."))
    `lora_r` (=0) must be at least 1.
    """

    path: str
    message: str
    value: Any = None
    line: int | None = None
    remedy: str = ""

    def __str__(self) -> str:
        text = f"`{self.path}` {self.message}" if self.path else self.message
        return f"{text} {self.remedy}" if self.remedy else text


class InvalidConfigError(CoreError, ValueError):
    """A configuration or argument that cannot be; `problems` holds every reason, not only the first.

    >>> error = InvalidConfigError("`rank` (=0) must be at least 1.", argument="rank", value=0)
    >>> error.argument, error.value
    ('rank', 0)
    >>> raise InvalidConfigError(problems=[Problem("rank", "(=0) must be at least 1."), Problem("alpha", "is missing.")])
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: 2 problems:
      `rank` (=0) must be at least 1.
      `alpha` is missing.
    """

    code = "invalid_config"
    argument: str | None
    value: Any
    problems: tuple[Problem, ...]

    def __init__(
        self,
        message: str = "",
        *,
        argument: str | None = None,
        value: Any = None,
        problems: Sequence[Problem] = (),
        remedy: str = "",
        **facts: Any,
    ) -> None:
        problems = tuple(problems) or (Problem(argument or "", message, value, remedy=remedy),)
        message = message or _listed(problems)
        super().__init__(message, remedy=remedy, argument=argument, value=value, problems=problems, **facts)


def _listed(problems: tuple[Problem, ...]) -> str:
    if len(problems) == 1:
        return str(problems[0])
    return "\n  ".join([f"{len(problems)} problems:", *map(str, problems)])


class _MismatchError(CoreError):
    """Two facts that should agree: `argument`, `expected`, `actual`."""

    subject: ClassVar[str]
    argument: str
    expected: Any
    actual: Any

    def __init__(
        self,
        message: str = "",
        *,
        expected: Any,
        actual: Any,
        argument: str = "tensor",
        remedy: str = "",
        **facts: Any,
    ) -> None:
        message = message or f"`{argument}` has {self.subject} {actual}, expected {expected}."
        super().__init__(message, remedy=remedy, argument=argument, expected=expected, actual=actual, **facts)


class ShapeMismatchError(_MismatchError, ValueError):
    """Sizes that do not fit together.

    >>> raise ShapeMismatchError(expected=(2, 3), actual=(3, 2), argument="weight")
    Traceback (most recent call last):
    bedstone.core.errors.ShapeMismatchError: `weight` has shape (3, 2), expected (2, 3).
    """

    code = "shape_mismatch"
    subject = "shape"


class DimensionMismatchError(_MismatchError, ValueError):
    """A tensor with too many or too few dimensions.

    >>> raise DimensionMismatchError(expected=2, actual=3, argument="weight")
    Traceback (most recent call last):
    bedstone.core.errors.DimensionMismatchError: `weight` has number of dimensions 3, expected 2.
    """

    code = "dimension_mismatch"
    subject = "number of dimensions"


class DeviceMismatchError(_MismatchError, RuntimeError):
    """A tensor that lies on another device than it must.

    >>> raise DeviceMismatchError(expected="cuda:0", actual="cpu", argument="input[1]")
    Traceback (most recent call last):
    bedstone.core.errors.DeviceMismatchError: `input[1]` has device cpu, expected cuda:0.
    """

    code = "device_mismatch"
    subject = "device"


class DeviceNotAvailableError(CoreError, RuntimeError):
    """A device that was asked for and cannot be had.

    Attributes:
        device: The device as asked for.
        reason: A stable reason code, for example `TORCH_CPU_BUILD`.

    >>> raise DeviceNotAvailableError("There is no cuda:7.", device="cuda:7", reason="NO_SUCH_ORDINAL", remedy="Use cuda:0.")
    Traceback (most recent call last):
    bedstone.core.errors.DeviceNotAvailableError: There is no cuda:7. Use cuda:0.
    """

    code = "device_not_available"
    device: str
    reason: str

    def __init__(self, message: str, *, device: str, reason: str = "", remedy: str = "", **facts: Any) -> None:
        super().__init__(message, remedy=remedy, device=device, reason=reason, **facts)


class OutOfMemoryError(CoreError, torch.OutOfMemoryError, MemoryError):
    """Memory that cannot be had; sizes in bytes, `None` where unknown.

    >>> raise OutOfMemoryError(requested_bytes=600, limit_bytes=1000, allocated_bytes=500)
    Traceback (most recent call last):
    bedstone.core.errors.OutOfMemoryError: Out of memory: requested 600 bytes, allocated 500 bytes, limit 1,000 bytes.
    """

    code = "out_of_memory"
    requested_bytes: int | None
    free_bytes: int | None
    limit_bytes: int | None
    allocated_bytes: int | None
    device: str | None

    def __init__(
        self,
        message: str = "",
        *,
        requested_bytes: int | None = None,
        free_bytes: int | None = None,
        limit_bytes: int | None = None,
        allocated_bytes: int | None = None,
        device: str | None = None,
        remedy: str = "",
        **facts: Any,
    ) -> None:
        named = {
            "requested": requested_bytes,
            "allocated": allocated_bytes,
            "free": free_bytes,
            "limit": limit_bytes,
        }
        sizes = ", ".join(f"{name} {size:,} bytes" for name, size in named.items() if size is not None)
        place = f" on {device}" if device else ""
        super().__init__(
            message or f"Out of memory{place}: {sizes or 'sizes unknown'}.",
            remedy=remedy,
            requested_bytes=requested_bytes,
            free_bytes=free_bytes,
            limit_bytes=limit_bytes,
            allocated_bytes=allocated_bytes,
            device=device,
            **facts,
        )


class KernelError(CoreError, RuntimeError):
    """A kernel that failed; nothing was retried on a slower path.

    Attributes:
        op: The operation, for example `nf4_linear`.
        implementation: The implementation that ran.
        shapes: The shapes of its inputs.

    >>> error = KernelError("It returned NaN.", op="rms_norm", implementation="triton", shapes=[(2, 64)])
    >>> error.op, error.shapes
    ('rms_norm', ((2, 64),))
    """

    code = "kernel"
    op: str
    implementation: str
    shapes: tuple[tuple[int, ...], ...]

    def __init__(
        self,
        message: str,
        *,
        op: str,
        implementation: str = "",
        shapes: Sequence[Sequence[int]] = (),
        remedy: str = "",
        **facts: Any,
    ) -> None:
        frozen = tuple(tuple(shape) for shape in shapes)
        super().__init__(message, remedy=remedy, op=op, implementation=implementation, shapes=frozen, **facts)


class UnsupportedError(CoreError, NotImplementedError):
    """Something that bedstone does not offer, said by name; `feature` names it.

    >>> raise UnsupportedError("Images are not supported.", feature="vision", remedy="Use text.")
    Traceback (most recent call last):
    bedstone.core.errors.UnsupportedError: Images are not supported. Use text.
    """

    code = "unsupported"
    feature: str

    def __init__(self, message: str, *, feature: str = "", remedy: str = "", **facts: Any) -> None:
        super().__init__(message, remedy=remedy, feature=feature, **facts)


class StorageError(CoreError, OSError):
    """A file or folder that cannot be read or written; `path` and `errno` say which and why.

    >>> import errno
    >>> error = StorageError("The disk is full.", path="runs/a", errno=errno.ENOSPC)
    >>> error.errno == errno.ENOSPC, str(error)
    (True, 'The disk is full.')
    """

    code = "storage"
    path: str

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str],
        errno: int | None = None,
        remedy: str = "",
        **facts: Any,
    ) -> None:
        super().__init__(message, remedy=remedy, path=str(path), **facts)
        self.errno = errno
        self.filename = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_storage, (type(self), self.args, self.__dict__, self.errno)

    @classmethod
    def from_os_error(
        cls, error: OSError, *, path: str | os.PathLike[str], doing: str, remedy: str = ""
    ) -> StorageError:
        """Return the same failure with path and intention in its message; raise it `from error`.

        Args:
            error: What the operating system said.
            path: The file or folder concerned.
            doing: What was tried, for example `write the checkpoint`.
            remedy: What to do next.
        """
        why = error.strerror or str(error) or type(error).__name__
        return cls(f"Could not {doing} at {path}: {why}.", path=path, errno=error.errno, remedy=remedy)


def _rebuild_storage(
    cls: type[StorageError], args: tuple[Any, ...], facts: dict[str, Any], errno: int | None
) -> CoreError:
    error = _rebuild(cls, args, facts)
    assert isinstance(error, StorageError)
    error.errno, error.filename = errno, facts["path"]
    return error


class FrameworkError(CoreError, RuntimeError):
    """An error of torch, wrapped with what was being done; `__cause__` is the original.

    >>> from bedstone.core.torch_errors import translate_torch_errors
    >>> try:
    ...     with translate_torch_errors(doing="add"):
    ...         torch.ones(2) + torch.ones(3)
    ... except FrameworkError as error:
    ...     print(type(error.__cause__).__name__)
    RuntimeError
    """

    code = "framework"


class UnknownNameError(CoreError, LookupError):
    """A name that nothing has; lists what is known and the nearest.

    >>> raise UnknownNameError("adapter", "lroa", ["lora", "dora"])
    Traceback (most recent call last):
    bedstone.core.errors.UnknownNameError: No adapter is called 'lroa'. Did you mean 'lora'? Known: dora, lora.
    """

    code = "unknown_name"
    kind: str
    name: str
    known: tuple[str, ...]

    def __init__(self, kind: str, name: str, known: Iterable[str], *, remedy: str = "", **facts: Any) -> None:
        known = tuple(sorted(known))
        guess = nearest(name, known)
        parts = [f"No {kind} is called {name!r}."]
        parts += [f"Did you mean {guess!r}?"] if guess else []
        parts += [f"Known: {', '.join(known) or 'none'}."]
        super().__init__(" ".join(parts), remedy=remedy, kind=kind, name=name, known=known, **facts)


class PluginError(CoreError, RuntimeError):
    """An installed plug-in that cannot be loaded; raised when it is asked for, never by an import.

    Attributes:
        group: The entry-point group, for example `bedstone.backends`.
        name: The name that the plug-in registers.
        traceback: The traceback of its own failure, as text.

    >>> raise PluginError("The plug-in 'npu' does not load.", group="bedstone.backends", name="npu")
    Traceback (most recent call last):
    bedstone.core.errors.PluginError: The plug-in 'npu' does not load.
    """

    code = "plugin"
    group: str
    name: str
    traceback: str

    def __init__(
        self, message: str, *, group: str, name: str, traceback: str = "", remedy: str = "", **facts: Any
    ) -> None:
        super().__init__(message, remedy=remedy, group=group, name=name, traceback=traceback, **facts)
