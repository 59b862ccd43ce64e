"""What decides among the implementations that can take an operation.

    policy       takes
    auto         the first that can; where measurements were kept (`kernels.tune`), the fastest of those that can
    measure      as auto; a shape class that nobody has measured is measured when it is first called
    exact        as auto, of those whose numerics are `exact`
    reference    plain torch
    require:X    the implementation X wherever an operation has one, or an error that says why it cannot
    strict       behind any of these, or alone for `auto,strict`: plain torch in place of something faster is an error

The policy is that of `policy(...)`, else of the variable `BEDSTONE_KERNELS`, else `auto`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bedstone.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

VARIABLE = "BEDSTONE_KERNELS"
POLICIES = "auto, measure, exact, reference or require:<implementation>, each also with `,strict` behind it"

changed: list[Callable[[], None]] = []
"""Called after what choices depend on has changed."""

_policy = ""


def current_policy() -> str:
    """Return the policy that holds now.

    Raises:
        InvalidConfigError: `BEDSTONE_KERNELS` is none.
    """
    return _policy or checked_policy(os.environ.get(VARIABLE, "auto"), VARIABLE)


@contextmanager
def policy(name: str, *, strict: bool = False) -> Generator[None]:
    """Choose implementations by another policy within a `with` block; for all threads.

    Args:
        name: `auto`, `measure`, `exact`, `reference` or `require:<implementation>`, each also with `,strict` behind it.
        strict: The same as `,strict`: plain torch is no substitute for an implementation that runs on the device of the inputs.

    Raises:
        InvalidConfigError: It is none of these.

    >>> with policy("exact", strict=True):
    ...     current_policy()
    'exact,strict'
    """
    global _policy  # noqa: PLW0603 - one policy a process
    wanted = checked_policy(name, "policy")
    wanted = f"{wanted},strict" if strict and not is_strict(wanted) else wanted
    before, _policy = _policy, wanted
    tell_changed()
    try:
        yield
    finally:
        _policy = before
        tell_changed()


def checked_policy(name: str, argument: str) -> str:
    """Return a policy as it is.

    Args:
        name: Of the policy.
        argument: Where it was written.

    Raises:
        InvalidConfigError: It is none.
    """
    if is_policy(name):
        return name
    message = f"`{argument}` (={name!r}) must be {POLICIES}."
    raise InvalidConfigError(message, argument=argument, value=name)


def is_policy(name: str) -> bool:
    """Tell whether a text is a policy.

    >>> is_policy("require:native"), is_policy("exact,strict"), is_policy("require:"), is_policy("fast")
    (True, True, False, False)
    """
    kind = _kind(name)
    return kind in ("auto", "measure", "exact", "reference") or (kind.startswith("require:") and kind != "require:")


def is_strict(name: str) -> bool:
    """Tell whether a policy takes no substitute.

    >>> is_strict("strict"), is_strict("auto")
    (True, False)
    """
    return name == "strict" or name.endswith(",strict")


def measures_first() -> bool:
    """Tell whether implementations are measured before one is chosen."""
    return _kind(current_policy()) == "measure"


def required_implementation() -> str:
    """Return the name that the policy requires, or nothing."""
    wanted = _kind(current_policy())
    return wanted.removeprefix("require:") if wanted.startswith("require:") else ""


def against_policy(name: str, numerics: str, *, required: str) -> str:
    """Return why the policy does not take an implementation, or nothing.

    Args:
        name: Of the implementation.
        numerics: Of the implementation.
        required: The implementation that must be taken, if one must.
    """
    wanted = _kind(current_policy())
    if wanted == "reference" and name != "reference":
        return "the policy is `reference`"
    if wanted == "exact" and numerics != "exact":
        return f"the policy is `exact`, and it is {numerics}"
    if required and name != required:
        return f"{required} is required"
    if numerics == "approximate" and not required:
        return "it is approximate, and so taken by name only"
    return ""


def tell_changed() -> None:
    """Have every choice made anew."""
    for listener in changed:
        listener()


def _kind(name: str) -> str:
    return "auto" if name == "strict" else name.removesuffix(",strict")
