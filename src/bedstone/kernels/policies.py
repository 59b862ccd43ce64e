"""What decides among the implementations that can take an operation.

    policy       takes
    auto         the first that can
    exact        the first that can whose numerics are `exact`
    reference    plain torch
    require:X    the implementation X wherever an operation has one, or an error that says why it cannot

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
POLICIES = "auto, exact, reference or require:<implementation>"

changed: list[Callable[[], None]] = []
"""Called after the policy has changed."""

_policy = ""


def current_policy() -> str:
    """Return the policy that holds now.

    Raises:
        InvalidConfigError: `BEDSTONE_KERNELS` is none.
    """
    return _policy or checked_policy(os.environ.get(VARIABLE, "auto"), VARIABLE)


@contextmanager
def policy(name: str) -> Generator[None]:
    """Choose implementations by another policy within a `with` block; for all threads.

    Args:
        name: `auto`, `exact`, `reference` or `require:<implementation>`.

    Raises:
        InvalidConfigError: It is none of these.

    >>> with policy("reference"):
    ...     current_policy()
    'reference'
    """
    global _policy  # noqa: PLW0603 - one policy a process
    before, _policy = _policy, checked_policy(name, "policy")
    _tell()
    try:
        yield
    finally:
        _policy = before
        _tell()


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

    >>> is_policy("require:native"), is_policy("require:"), is_policy("fast")
    (True, False, False)
    """
    return name in ("auto", "exact", "reference") or (name.startswith("require:") and name != "require:")


def required_implementation() -> str:
    """Return the name that the policy requires, or nothing."""
    wanted = current_policy()
    return wanted.removeprefix("require:") if wanted.startswith("require:") else ""


def against_policy(name: str, numerics: str, *, required: str) -> str:
    """Return why the policy does not take an implementation, or nothing.

    Args:
        name: Of the implementation.
        numerics: Of the implementation.
        required: The implementation that must be taken, if one must.
    """
    wanted = current_policy()
    if wanted == "reference" and name != "reference":
        return "the policy is `reference`"
    if wanted == "exact" and numerics != "exact":
        return f"the policy is `exact`, and it is {numerics}"
    if required and name != required:
        return f"the policy requires {required}"
    if numerics == "approximate" and not required:
        return "it is approximate, and so taken by name only"
    return ""


def _tell() -> None:
    for listener in changed:
        listener()
