"""DeviceConfig: one truth, shorthands that map onto it, every problem named, an origin that is told and not compared."""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.device import DeviceConfig
from bedstone.core.errors import InvalidConfigError


def message(*args, **kwargs):
    with pytest.raises(InvalidConfigError) as caught:
        DeviceConfig(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    "device",
    ["auto", "cpu", "cuda", "cuda:0", "cuda:15", "cuda:GPU-8932f937", "cuda:MIG-8932f937-d72c", "mps", "xpu", "xpu:1"],
)
def test_keeps_every_name_of_a_device(device):
    """What is written is what is kept."""
    assert DeviceConfig(device).device == device


@given(st.integers(0, 10_000))
def test_cuda_device_is_a_shorthand(number):
    """`cuda_device` and `device` are two ways to write one thing, and both read back."""
    config = DeviceConfig(cuda_device=number)
    assert config == DeviceConfig(f"cuda:{number}")
    assert (config.device, config.cuda_device, config.force_cpu) == (f"cuda:{number}", number, False)


def test_force_cpu_is_a_shorthand_and_wins():
    """As in the document's decision tree."""
    assert DeviceConfig(force_cpu=True) == DeviceConfig("cpu") == DeviceConfig(force_cpu=True, cuda_device=3)
    assert DeviceConfig(force_cpu=True).force_cpu
    assert DeviceConfig("cpu").cuda_device is None


def test_the_only_one_of_its_kind_loses_its_number():
    """As torch writes them: `cpu:0` and `mps:0`; a `torch.device` is taken as its text."""
    assert DeviceConfig(torch.device("cuda", 1)) == DeviceConfig("cuda:1")
    assert (DeviceConfig("cpu:0").device, DeviceConfig(torch.device("mps", 0)).device) == ("cpu", "mps")


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        (
            {"device": "cuda", "force_cpu": True},
            "`device` (='cuda') contradicts `force_cpu` (=True). Give one of them.",
        ),
        (
            {"device": "cuda:1", "cuda_device": 0},
            "`device` (='cuda:1') contradicts `cuda_device` (=0). Give one of them.",
        ),
        ({"device": "cpu", "cuda_device": 0}, "`device` (='cpu') contradicts `cuda_device` (=0). Give one of them."),
        ({"cuda_device": -1}, "`cuda_device` (=-1) must be a whole number, 0 or more."),
        ({"cuda_device": True}, "`cuda_device` (=True) must be a whole number, 0 or more."),
        ({"cuda_device": 1.0}, "`cuda_device` (=1.0) must be a whole number, 0 or more."),
    ],
)
def test_refuses_a_shorthand_that_contradicts_or_cannot_be(kwargs, text):
    """One truth: two that differ are an error, not a race."""
    assert message(**kwargs) == text


@pytest.mark.parametrize("device", ["", "CUDA", "cuda:", "cuda:-1", "cuda:01", "cuda: 1", " cpu", "cuda:1:2", 1, None])
def test_refuses_what_is_not_written_like_a_device(device):
    """Also what is no text at all."""
    assert message(device) == (
        f"DeviceConfig has a problem:\n  `device` (={device!r}) must be a name, or a name and a number such as 'cuda:1', "
        "in lower case."
    )


@pytest.mark.parametrize("device", ["cpu:1", "mps:1", "auto:0"])
def test_refuses_a_number_where_there_is_only_one(device):
    """There is one CPU, one Apple GPU."""
    name = device.split(":")[0]
    text = f"DeviceConfig has a problem:\n  `device` (={device!r}) takes no number: there is only one {name!r}."
    assert message(device) == text


def test_refuses_a_uuid_for_other_than_cuda():
    """Only CUDA's driver gives devices such names."""
    assert message("xpu:GPU-12") == (
        "DeviceConfig has a problem:\n  `device` (='xpu:GPU-12') names a UUID, which only 'cuda' takes."
    )


def test_suggests_the_nearest_name_and_lists_every_problem():
    """All at once: nobody corrects one and meets the next."""
    with pytest.raises(InvalidConfigError) as caught:
        DeviceConfig("cuad:1", package="", min_free_bytes=-1)
    known = "Known: auto, cpu, cuda, xpu, mps; with a number: 'cuda:1'."
    assert str(caught.value) == (
        "DeviceConfig has 3 problems:\n"
        f"  `device` (='cuad:1') names no device. Did you mean 'cuda'? {known}\n"
        "  `package` (='') must be a text that is not empty.\n"
        "  `min_free_bytes` (=-1) must be a whole number of bytes, 0 or more."
    )
    assert [problem.path for problem in caught.value.problems] == ["device", "package", "min_free_bytes"]


def test_takes_the_name_of_a_registered_backend(install):
    """A plug-in's name is a device like ours, with or without a number."""

    class Shelf:
        name = "shelf"

        def probe(self):
            return None

        def diagnose(self, facts):
            return ()

    install(Shelf())
    assert DeviceConfig("shelf:2").selector == "2"


def test_is_frozen_hashable_copyable_and_replaceable():
    """A value: no hidden state, and `dataclasses.replace` works although shorthands are accepted."""
    config = DeviceConfig(cuda_device=1, package="mine")
    with pytest.raises(FrozenInstanceError):
        config.device = "cpu"
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert len({config, DeviceConfig("cuda:1", "mine")}) == 1
    assert replace(config, device="cpu") == DeviceConfig("cpu", "mine")
    assert replace(DeviceConfig(package="mine"), cuda_device=1) == config


def test_knows_where_it_comes_from_without_comparing_it():
    """`default` only while nobody said anything."""
    assert DeviceConfig().source == "default"
    assert DeviceConfig("cuda").source == replace(DeviceConfig(), device="cuda").source == "argument"
    from_env = DeviceConfig.from_env({"RUST_AI_CUDA_DEVICE": "1"})
    assert (from_env.source, from_env) == ("RUST_AI_CUDA_DEVICE", DeviceConfig("cuda:1"))


def test_a_false_flag_is_automatic_and_says_which_variable():
    """It is set, so it decides; what it decides is `auto`."""
    config = DeviceConfig.from_env({"BEDSTONE_FORCE_CPU": "0", "RUST_AI_FORCE_CPU": "1"})
    assert (config.device, config.source) == ("auto", "BEDSTONE_FORCE_CPU")


def test_reads_the_environment_of_the_process_and_keeps_the_package(monkeypatch):
    """Without a mapping it is `os.environ`."""
    monkeypatch.setenv("BEDSTONE_FORCE_CPU", "on")
    assert DeviceConfig.from_env(package="mine") == DeviceConfig("cpu", "mine")


@pytest.mark.parametrize("prefix", ["AXOLOTL_", "VSA_OPTIM_"])
def test_old_names_work_and_warn_at_the_callers_line(prefix):
    """The warning names the new variable and points here."""
    with pytest.warns(DeprecationWarning, match=prefix) as caught:
        config = DeviceConfig.from_env({f"{prefix}CUDA_DEVICE": "1"})
    assert config.device == "cuda:1"
    assert str(caught[0].message) == (
        f"The environment variable {prefix}CUDA_DEVICE is an old name. Use BEDSTONE_CUDA_DEVICE instead."
    )
    assert caught[0].filename == __file__


def test_current_names_do_not_warn():
    """`RUST_AI_` is the document's own name."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DeviceConfig.from_env({"RUST_AI_FORCE_CPU": "1"}).device == "cpu"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"device": []}, "`device` (=[]) must be a name, or a name and a number such as 'cuda:1', in lower case."),
        ({"package": None}, "`package` (=None) must be a text that is not empty."),
        ({"force_cpu": "0"}, "`force_cpu` (='0') must be True or False."),
    ],
)
def test_a_value_of_a_wrong_type_is_named(wrong, said):
    """The text "0" would count as true, and a list cannot even be looked up."""
    with pytest.raises(InvalidConfigError) as caught:
        DeviceConfig(**wrong)
    assert said in str(caught.value)


def test_a_number_that_no_machine_reaches_is_refused():
    """Python refuses to read more than 4,300 digits, with an error of its own."""
    endless = "9" * 5000
    with pytest.raises(InvalidConfigError, match="must be a name, or a name and a number"):
        DeviceConfig(f"cuda:{endless}")
    with pytest.raises(InvalidConfigError, match="BEDSTONE_CUDA_DEVICE"):
        DeviceConfig.from_env({"BEDSTONE_CUDA_DEVICE": endless})
