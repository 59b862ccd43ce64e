"""The kit passes every error of the tree and catches each way to break the contract."""

from __future__ import annotations

import errno

import pytest

from bedstone.core import errors
from bedstone.core.errors import CoreError, Problem
from bedstone.testing.errors import check_error

TREE = [
    (errors.InvalidConfigError, {"message": "`rank` (=0) must be at least 1.", "argument": "rank", "value": 0}),
    (
        errors.InvalidConfigError,
        {"problems": [Problem("rank", "(=0) must be at least 1."), Problem("alpha", "is missing.")]},
    ),
    (errors.ShapeMismatchError, {"expected": (2, 3), "actual": (3, 2), "argument": "weight"}),
    (errors.DimensionMismatchError, {"expected": 2, "actual": 3}),
    (errors.DeviceNotAvailableError, {"message": "There is no cuda:9.", "device": "cuda:9", "reason": "NO_SUCH"}),
    (errors.DeviceMismatchError, {"expected": "cuda:0", "actual": "cpu", "argument": "input[1]"}),
    (errors.OutOfMemoryError, {"requested_bytes": 6_000_000, "free_bytes": 500, "device": "cuda:0"}),
    (errors.KernelError, {"message": "nf4 failed in triton for (2, 3).", "op": "nf4", "implementation": "triton"}),
    (errors.UnsupportedError, {"message": "No int3 here.", "feature": "int3", "remedy": "Use int4."}),
    (errors.StorageError, {"message": "runs/a: the disk is full.", "path": "runs/a", "errno": errno.ENOSPC}),
    (errors.FrameworkError, {"message": "torch failed."}),
    (errors.UnknownNameError, {"kind": "adapter", "name": "lroa", "known": ("dora", "lora")}),
    (errors.PluginError, {"message": "npu does not load.", "group": "bedstone.backends", "name": "npu"}),
]


@pytest.mark.parametrize(("cls", "facts"), TREE, ids=lambda part: getattr(part, "__name__", ""))
def test_every_error_of_the_tree_passes(cls, facts):
    """Our own errors are the first users of the kit."""
    check_error(cls, **facts)


def test_the_table_above_is_complete():
    """A new error needs a row."""
    public = {v for k, v in vars(errors).items() if isinstance(v, type) and issubclass(v, CoreError) and k[0] != "_"}
    assert public - {CoreError} == {cls for cls, _ in TREE}


class GoodError(CoreError, ValueError):
    """A rank that does not fit."""

    code = "good"

    def __init__(self, *, rank):
        super().__init__(f"`rank` (={rank}) does not fit.", rank=rank)


class NoBuiltInError(CoreError):
    """Derives from nothing that a caller knows."""

    code = "no_built_in"


class NoCodeError(CoreError, ValueError):
    """Keeps the code of its base."""


class BadCodeError(CoreError, ValueError):
    """Has a code with a space."""

    code = "Bad Code"


class UndocumentedError(CoreError, ValueError):
    code = "undocumented"


class ForgetsFactError(CoreError, ValueError):
    """Takes a rank and does not keep it."""

    code = "forgets_fact"

    def __init__(self, *, rank):
        super().__init__(f"{rank} is too much.")


class ChangesFactError(GoodError):
    """Keeps another rank than it was given."""

    code = "changes_fact"

    def __init__(self, *, rank):
        super().__init__(rank=rank)
        self.rank = 0


class SilentError(CoreError, ValueError):
    """Does not say the rank."""

    code = "silent"

    def __init__(self, *, rank):
        super().__init__("Too much.", rank=rank)


class LosesFactInPickleError(GoodError):
    """Is rebuilt without its attributes."""

    code = "loses_fact"

    def __reduce__(self):
        return _empty, (type(self),)


def _empty(cls):
    error = cls.__new__(cls)
    error.message, error.remedy, error.args = "`rank` (=9) does not fit.", "", ()
    return error


class NotJsonError(GoodError):
    """Puts an object into its record."""

    code = "not_json"

    def to_dict(self):
        return {"code": self.code, "rank": object()}


class ShortRecordError(GoodError):
    """Leaves a fact out of its record."""

    code = "short_record"

    def to_dict(self):
        return {"code": self.code}


def test_a_good_subclass_passes():
    """With its own constructor."""
    check_error(GoodError, rank=9)


@pytest.mark.parametrize(
    ("cls", "facts", "complaint"),
    [
        (CoreError, {"message": "x"}, "CoreError must derive from CoreError."),
        (NoBuiltInError, {"message": "x"}, "NoBuiltInError must also derive from the built-in a caller would catch."),
        (NoCodeError, {"message": "x"}, "NoCodeError needs a `code` of its own; 'core' is that of a base."),
        (
            BadCodeError,
            {"message": "x"},
            "The code of BadCodeError (='Bad Code') must be lower-case letters, digits and _.",
        ),
        (
            UndocumentedError,
            {"message": "x"},
            "UndocumentedError needs a docstring: a sentence that says when it is raised.",
        ),
        (ForgetsFactError, {"rank": 9}, "ForgetsFactError must have the attribute `rank`."),
        (ChangesFactError, {"rank": 9}, "`rank` of ChangesFactError is 0, though 9 was given."),
        (SilentError, {"rank": 9}, "The message of SilentError must say `rank` (=9). It is: Too much."),
        (LosesFactInPickleError, {"rank": 9}, "LosesFactInPickleError after copy has `rank` = None instead of 9."),
        (ShortRecordError, {"rank": 9}, "to_dict() of ShortRecordError lacks rank."),
    ],
)
def test_each_broken_promise_is_named(cls, facts, complaint):
    """The message says what to mend."""
    with pytest.raises(AssertionError) as caught:
        check_error(cls, **facts)
    assert str(caught.value) == complaint


def test_a_record_that_is_no_json_is_named():
    """With what JSON says."""
    with pytest.raises(AssertionError, match=r"^to_dict\(\) of NotJsonError must hold JSON values only: "):
        check_error(NotJsonError, rank=9)
