"""Environment variables: the first prefix with a set variable decides, values are strict, errors name variable and value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.device.environment import PREFIXES, Wish, read_wish
from bedstone.core.errors import InvalidConfigError

TRUE = ("1", "true", "TRUE", "True", "yes", "YES", "on", "On")
FALSE = ("0", "false", "FALSE", "no", "No", "off", "OFF")
BAD_FLAGS = ("2", "y", "n", "enabled", " 1", "1 ", "-1", "tru", " ")
BAD_DEVICES = ("-1", "+1", " 1", "1 ", "cuda:1", "cuda", "1.0", "GPU-", "gpu-12", "0x1", "\u0661")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("variables", "device", "winner"),
    [
        *(({"FORCE_CPU": value}, "cpu", "FORCE_CPU") for value in TRUE),
        *(({"FORCE_CPU": value}, "auto", "FORCE_CPU") for value in FALSE),
        *(({"FORCE_CPU": value, "CUDA_DEVICE": "3"}, "cpu", "FORCE_CPU") for value in TRUE),
        *(({"FORCE_CPU": value, "CUDA_DEVICE": "3"}, "cuda:3", "CUDA_DEVICE") for value in FALSE),
        ({"CUDA_DEVICE": "0"}, "cuda:0", "CUDA_DEVICE"),
        ({"CUDA_DEVICE": "007"}, "cuda:7", "CUDA_DEVICE"),
        ({"CUDA_DEVICE": "GPU-8932f937-d72c"}, "cuda:GPU-8932f937-d72c", "CUDA_DEVICE"),
        ({"CUDA_DEVICE": "MIG-8932f937"}, "cuda:MIG-8932f937", "CUDA_DEVICE"),
        ({"FORCE_CPU": "", "CUDA_DEVICE": "2"}, "cuda:2", "CUDA_DEVICE"),
    ],
)
def test_each_value_means_what_the_table_says(prefix, variables, device, winner):
    """Every prefix reads the same values in the same way."""
    environ = {prefix + name: value for name, value in variables.items()}
    assert read_wish(environ) == Wish(device, prefix + winner)


@pytest.mark.parametrize("environ", [{}, {"RUST_AI_FORCE_CPU": "", "BEDSTONE_CUDA_DEVICE": ""}, {"FORCE_CPU": "1"}])
def test_nothing_set_is_no_wish(environ):
    """An empty value counts as not set, and names without a prefix are not ours."""
    assert read_wish(environ) is None


@given(st.dictionaries(st.sampled_from(PREFIXES), st.sampled_from((*TRUE, *FALSE)), min_size=1))
def test_the_first_set_prefix_decides_alone(flags):
    """A false value decides too: it does not fall through to the next prefix, as it did in the original."""
    wish = read_wish({f"{prefix}FORCE_CPU": value for prefix, value in flags.items()})
    first = min(flags, key=PREFIXES.index)
    assert wish == Wish("cpu" if flags[first] in TRUE else "auto", f"{first}FORCE_CPU")


@pytest.mark.parametrize("value", BAD_FLAGS)
def test_refuses_a_flag_that_is_neither_true_nor_false(value):
    """The whole message, so that somebody has read it."""
    with pytest.raises(InvalidConfigError) as caught:
        read_wish({"RUST_AI_FORCE_CPU": value})
    assert str(caught.value) == (
        f"The environment variable RUST_AI_FORCE_CPU (={value!r}) must be one of "
        "1, true, yes, on, 0, false, no, off. Correct or unset it."
    )
    assert (caught.value.argument, caught.value.value) == ("RUST_AI_FORCE_CPU", value)


@pytest.mark.parametrize("value", BAD_DEVICES)
def test_refuses_a_device_that_is_neither_number_nor_uuid(value):
    """Nothing is skipped in silence."""
    with pytest.raises(InvalidConfigError) as caught:
        read_wish({"BEDSTONE_CUDA_DEVICE": value})
    assert str(caught.value) == (
        f"The environment variable BEDSTONE_CUDA_DEVICE (={value!r}) must be a number such as 0, "
        "or a UUID that begins with GPU- or MIG-. Correct or unset it."
    )


def test_names_every_bad_variable_of_the_deciding_prefix():
    """Both at once; a bad value under a later prefix is not read."""
    environ = {"BEDSTONE_FORCE_CPU": "maybe", "BEDSTONE_CUDA_DEVICE": "one", "AXOLOTL_FORCE_CPU": "what"}
    with pytest.raises(InvalidConfigError) as caught:
        read_wish(environ)
    assert [problem.path for problem in caught.value.problems] == ["BEDSTONE_FORCE_CPU", "BEDSTONE_CUDA_DEVICE"]
