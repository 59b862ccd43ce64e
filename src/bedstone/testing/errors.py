"""The conformance kit of an error class: what a caller, a worker process and a log rely on, in one call.

A family declares its own errors beside its code by subclassing `CoreError`. An error that loses its facts on the way
out of a worker process, or that a caller's `except ValueError` misses, is found out when it is needed most.
"""

from __future__ import annotations

import copy
import json
import pickle
import re
import traceback
from typing import TYPE_CHECKING, Any

from bedstone.core.errors import CoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Facts for programs, and the parts of the message itself: a sentence need not repeat them.
_UNSAID = {"message", "remedy", "reason", "group", "traceback", "errno"}


def check_error(cls: type[CoreError], **facts: Any) -> None:
    """Check that an error class keeps its contract; say which part it breaks.

    Checked: it has a docstring, a `code` of its own, and a built-in exception among its bases that is more than
    `Exception`; every fact is an attribute and is said in the message (as it is, quoted, or with thousands separators);
    `copy`, `deepcopy` and every pickle protocol keep type, message and attributes; `to_dict()` is JSON; `raise ... from`
    keeps the cause; a note shows in the traceback.

    Args:
        cls: The class.
        facts: Arguments of its constructor, by name, as in a real failure. `message`, `remedy`, `reason`, `group`,
            `traceback` and `errno` may stay out of the message.

    Raises:
        AssertionError: The contract is broken; the message says where.

    >>> from bedstone.core.errors import UnknownNameError
    >>> check_error(UnknownNameError, kind="adapter", name="lroa", known=("dora", "lora"))
    """
    _check_class(cls)
    error = cls(**facts)
    _check_facts(error, facts)
    _check_copies(error)
    _check_to_dict(error)
    _check_raising(cls, facts)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _check_class(cls: type[CoreError]) -> None:
    name = cls.__name__
    _require(issubclass(cls, CoreError) and cls is not CoreError, f"{name} must derive from CoreError.")
    _require(bool((cls.__doc__ or "").strip()), f"{name} needs a docstring: a sentence that says when it is raised.")
    _require(_built_in_base(cls) is not None, f"{name} must also derive from the built-in a caller would catch.")
    inherited = [base.code for base in cls.__mro__[1:] if issubclass(base, CoreError)]
    _require(cls.code not in inherited, f"{name} needs a `code` of its own; {cls.code!r} is that of a base.")
    snake = re.fullmatch(r"[a-z][a-z0-9_]*", cls.code) is not None
    _require(snake, f"The code of {name} (={cls.code!r}) must be lower-case letters, digits and _.")


def _built_in_base(cls: type[CoreError]) -> type[BaseException] | None:
    plain = (Exception, BaseException, object)
    return next((base for base in cls.__mro__ if base.__module__ == "builtins" and base not in plain), None)


def _check_facts(error: CoreError, facts: Mapping[str, Any]) -> None:
    name = type(error).__name__
    text = str(error)
    _require(bool(text.strip()), f"{name} has an empty message.")
    for fact, value in facts.items():
        _require(hasattr(error, fact), f"{name} must have the attribute `{fact}`.")
        kept = getattr(error, fact)
        # A list may become a tuple and a path a text, so that the error is frozen and portable.
        same = kept == value or str(kept) == str(value) or (isinstance(value, list) and kept == tuple(value))
        _require(same, f"`{fact}` of {name} is {kept!r}, though {value!r} was given.")
        if fact not in _UNSAID:
            _require(_says(text, value), f"The message of {name} must say `{fact}` (={value!r}). It is: {text}")


def _says(text: str, value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, (list, tuple)) and str(value) not in text:
        return all(_says(text, item) for item in value)
    forms = {str(value), repr(value)} | ({f"{value:,}"} if isinstance(value, (int, float)) else set())
    return any(form in text for form in forms)


def _check_copies(error: CoreError) -> None:
    copies = {"copy": copy.copy(error), "deepcopy": copy.deepcopy(error)}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copies[f"pickle protocol {protocol}"] = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes
    for way, other in copies.items():
        name = f"{type(error).__name__} after {way}"
        _require(type(other) is type(error), f"{name} is a {type(other).__name__}.")
        _require(str(other) == str(error), f"{name} says {str(other)!r} instead of {str(error)!r}.")
        for fact, value in error.context.items():
            kept = getattr(other, fact, None)
            _require(_equal(kept, value), f"{name} has `{fact}` = {kept!r} instead of {value!r}.")
        if isinstance(error, OSError):
            assert isinstance(other, OSError)
            _require(other.errno == error.errno, f"{name} has lost its errno.")


def _equal(first: Any, second: Any) -> bool:
    # repr decides where a value, such as an array, has no single answer to ==.
    return repr(first) == repr(second) or first is second


def _check_to_dict(error: CoreError) -> None:
    name = type(error).__name__
    try:
        record = json.loads(json.dumps(error.to_dict()))
    except (TypeError, ValueError) as problem:
        raise AssertionError(f"to_dict() of {name} must hold JSON values only: {problem}.") from problem
    _require(record["code"] == type(error).code, f"to_dict() of {name} must hold its code.")
    missing = sorted(error.context.keys() - record.keys())
    _require(not missing, f"to_dict() of {name} lacks {', '.join(missing)}.")


def _check_raising(cls: type[CoreError], facts: Mapping[str, Any]) -> None:
    built_in = _built_in_base(cls)
    assert built_in is not None  # checked before
    cause = RuntimeError("the cause")
    caught: BaseException | None = None
    try:
        raise cls(**facts) from cause
    except built_in as error:  # as a caller who knows nothing of bedstone would
        caught = error
    _require(caught.__cause__ is cause, f"{cls.__name__} loses its cause in `raise ... from`.")
    caught.add_note("a note from the caller")
    shown = "".join(traceback.format_exception(caught))
    _require("a note from the caller" in shown, f"{cls.__name__} does not show its notes.")
    _require(str(caught) in shown, f"The traceback of {cls.__name__} does not show its message.")
