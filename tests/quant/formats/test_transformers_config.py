"""`BedstoneConfig` says what `from_pretrained` packs, survives `config.json`, and refuses what it does not know."""

import json
import subprocess
import sys

import pytest

from bedstone import quant
from bedstone.core.errors import InvalidConfigError, UnknownNameError
from bedstone.quant import BedstoneConfig
from bedstone.quant.formats import FormatVersionError

SCHEMES = [
    quant.NF4(block_size=128, double_quant=True),
    quant.FP4(),
    quant.Int8(granularity="block", block_size=32),
    quant.FP8(format="e5m2"),
    quant.Ternary(granularity="row"),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("skip", [None, [], ["lm_head", "model.layers.0"]], ids=str)
def test_comes_back_from_json_with_every_option(scheme, skip):
    """What `config.json` holds is the whole configuration."""
    written = json.loads(json.dumps(BedstoneConfig(scheme, skip=skip).to_dict()))
    again = BedstoneConfig.from_dict(written)
    assert (again.scheme, again.skip) == (scheme, skip)
    assert (written["quant_method"], written["format_version"]) == ("bedstone", 1)


@pytest.mark.parametrize("given", ["int8", quant.Int8(), quant.Int8().to_dict(), {"scheme": "int8"}], ids=str)
def test_takes_a_scheme_its_name_or_its_dictionary(given):
    """All ways to name a scheme mean the same."""
    assert BedstoneConfig(given).scheme == quant.Int8()


def test_an_unknown_scheme_lists_the_known_ones():
    """A misspelt name is answered with the nearest."""
    with pytest.raises(UnknownNameError, match=r"No quantization scheme is called 'nf5'\. Did you mean 'nf4'\?"):
        BedstoneConfig("nf5")


@pytest.mark.parametrize("skip", ["lm_head", [3]], ids=str)
def test_skip_must_be_a_list_of_names(skip):
    """A bare text would be read letter by letter."""
    with pytest.raises(InvalidConfigError) as caught:
        BedstoneConfig(skip=skip)
    assert str(caught.value) == f'`skip` (={skip!r}) must be a list of layer names. Write `skip=["lm_head"]`.'


def test_a_newer_version_is_refused_by_version():
    """Files of the future are not guessed at."""
    with pytest.raises(FormatVersionError) as caught:
        BedstoneConfig.from_dict({**BedstoneConfig().to_dict(), "format_version": 3})
    assert (caught.value.version, caught.value.newest) == (3, 1)


def test_a_key_that_is_not_known_is_refused():
    """A key that would change nothing is no key."""
    with pytest.raises(InvalidConfigError) as caught:
        BedstoneConfig.from_dict({"quant_method": "bedstone", "scheme": "nf4", "bits": 4})
    assert str(caught.value) == "The quantization_config of a bedstone model has no key 'bits'."


def test_importing_quant_imports_no_transformers():
    """The name is loaded on first use, and is listed before."""
    code = (
        "import sys, bedstone.quant as q; assert 'BedstoneConfig' in dir(q); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_of_quant_is_an_attribute_error():
    """The lazy look-up knows one name."""
    with pytest.raises(AttributeError, match=r"module 'bedstone\.quant' has no attribute 'Bedstone'"):
        quant.Bedstone  # noqa: B018
