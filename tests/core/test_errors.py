"""Errors carry their facts, read as sentences, survive pickling and are caught by the built-in a caller expects."""

from __future__ import annotations

import copy
import errno
import json
import pickle

import pytest
import torch

from bedstone.core import errors
from bedstone.core.errors import (
    CoreError,
    DeviceMismatchError,
    DeviceNotAvailableError,
    DimensionMismatchError,
    FrameworkError,
    InvalidConfigError,
    KernelError,
    OutOfMemoryError,
    PluginError,
    Problem,
    ShapeMismatchError,
    StorageError,
    UnknownNameError,
    UnsupportedError,
)
from bedstone.core.events import ErrorRaised

EXAMPLES = [
    (InvalidConfigError("`rank` (=0) must be at least 1.", argument="rank", value=0), ValueError),
    (ShapeMismatchError(expected=(2, 3), actual=(3,)), ValueError),
    (DimensionMismatchError(expected=2, actual=3), ValueError),
    (DeviceMismatchError(expected="cuda:0", actual="cpu"), RuntimeError),
    (DeviceNotAvailableError("No cuda:3.", device="cuda:3", reason="NO_SUCH_ORDINAL", remedy="Pick 0."), RuntimeError),
    (OutOfMemoryError(requested_bytes=2**40, limit_bytes=2**33, allocated_bytes=0), MemoryError),
    (OutOfMemoryError(requested_bytes=2**40), torch.OutOfMemoryError),
    (KernelError("It failed.", op="rms_norm", implementation="triton", shapes=[[1, 2]]), RuntimeError),
    (UnsupportedError("No.", feature="vision"), NotImplementedError),
    (StorageError("Disk full.", path="runs/a", errno=errno.ENOSPC, remedy="Free some space."), OSError),
    (FrameworkError("torch failed."), RuntimeError),
    (UnknownNameError("adapter", "lroa", ["lora"]), LookupError),
    (PluginError("Broken.", group="bedstone.backends", name="npu", traceback="..."), RuntimeError),
]
IDS = [type(error).__name__ for error, _ in EXAMPLES]


@pytest.mark.parametrize(("error", "builtin"), EXAMPLES, ids=IDS)
def test_is_caught_as_core_error_and_as_the_expected_builtin(error, builtin):
    """A caller may catch the whole tree or the built-in."""
    for caught in (CoreError, builtin):
        with pytest.raises(caught):
            raise error


@pytest.mark.parametrize(("error", "_builtin"), EXAMPLES, ids=IDS)
@pytest.mark.parametrize("twin", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_survives_pickle_and_copy_with_every_fact(error, _builtin, twin):
    """Facts cross process borders, errno and path included."""
    error.add_note("seen in a worker")
    again = twin(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.to_dict() == error.to_dict()
    assert again.__notes__ == error.__notes__
    assert getattr(again, "errno", None) == getattr(error, "errno", None)
    del error.__notes__


@pytest.mark.parametrize(("error", "_builtin"), EXAMPLES, ids=IDS)
def test_becomes_flat_json(error, _builtin):
    """Programs read the same facts that people do."""
    facts = json.loads(json.dumps(error.to_dict()))
    assert facts["code"] == type(error).code
    assert facts["message"] == error.message


def test_codes_are_unique():
    """A code names one class."""
    classes = {type(error) for error, _ in EXAMPLES}
    assert len({cls.code for cls in classes}) == len(classes)


def test_a_config_error_lists_every_problem():
    """All problems are in the text and in `problems`."""
    problems = [Problem("a", "is missing."), Problem("b", "(=3) must be even.", 3, remedy="Use 2 or 4.")]
    error = InvalidConfigError(problems=problems)
    assert str(error) == "2 problems:\n  `a` is missing.\n  `b` (=3) must be even. Use 2 or 4."
    assert error.problems == tuple(problems)


def test_a_storage_error_keeps_what_the_system_said():
    """errno, path and reason come from the operating system's own error."""
    try:
        open("/no/such/folder/file")  # noqa: PTH123, SIM115
    except OSError as cause:
        error = StorageError.from_os_error(cause, path="/no/such/folder/file", doing="read the config")
    assert str(error) == "Could not read the config at /no/such/folder/file: No such file or directory."
    assert (error.errno, error.path, error.filename) == (errno.ENOENT, "/no/such/folder/file", "/no/such/folder/file")


def test_an_unknown_name_without_a_near_one_guesses_nothing():
    """A far-fetched guess would mislead."""
    assert str(UnknownNameError("scheme", "zzz", [])) == "No scheme is called 'zzz'. Known: none."


def test_a_raised_error_is_one_event_with_location_and_stack(events):
    """The event says where the raise stands, not where the event was made."""
    with pytest.raises(ShapeMismatchError) as caught:
        raise ShapeMismatchError(expected=(1,), actual=(2,))
    (event,) = events
    assert isinstance(event, ErrorRaised)
    assert (event.code, event.error, event.text) == ("shape_mismatch", "ShapeMismatchError", str(caught.value))
    assert event.location.startswith(__file__ + ":")
    assert "raise ShapeMismatchError" in event.stack


def test_a_copied_error_is_not_raised_again(events):
    """Only a raise is an event, not a copy or an unpickling."""
    error = CoreError("once")
    copy.copy(error)
    pickle.loads(pickle.dumps(error))
    assert len(events) == 1


def test_errors_work_when_nobody_observes():
    """The tree stands below the event stream and does not need it."""
    observer = errors._observer
    errors.observe_errors(None)
    try:
        assert str(CoreError("quiet")) == "quiet"
    finally:
        errors.observe_errors(observer)
