"""The keys that pack the base model: which scheme each comes to, and what is refused before anything is loaded."""

from __future__ import annotations

import pytest

from bedstone.core.errors import InvalidConfigError
from bedstone.quant import FP4, FP8, NF4, Int8, schemes
from bedstone.train.config import BaseQuantization, base_quantization, dump_effective, load_config, parse_config

BASE = {"base_model": "models/tiny", "datasets": [{"type": "stdlib_docstrings"}], "adapter": "qlora"}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"load_in_4bit": True}, BaseQuantization(NF4())),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, BaseQuantization(FP4())),
        ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, BaseQuantization(NF4(double_quant=True))),
        ({"load_in_8bit": True}, BaseQuantization(Int8())),
        ({"quantization": {"scheme": "nf4", "block_size": 128}}, BaseQuantization(NF4(block_size=128))),
        ({"quantization": {"scheme": "fp8", "skip": ["lm_head"]}}, BaseQuantization(FP8(), skip=("lm_head",))),
        (
            {"load_in_8bit": True, "lora_modules_to_save": ["embed_tokens"]},
            BaseQuantization(Int8(), trained=("embed_tokens",)),
        ),
    ],
)
def test_each_spelling_comes_to_a_scheme(keys, expected):
    """What is trained whole stays dense."""
    assert base_quantization(parse_config(BASE | keys)) == expected


def test_without_a_key_the_model_stays_dense():
    """Nothing is packed that nobody asked for."""
    assert base_quantization(parse_config(BASE | {"adapter": "lora"})) is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"load_in_4bit": True, "load_in_8bit": True},
            "load_in_8bit: stands beside `load_in_4bit`; both say how the base model is packed. Keep one of the two.",
        ),
        (
            {"load_in_4bit": True, "adapter": None},
            "load_in_4bit: packs a model that is trained whole, but packed weights are frozen. Write `adapter: qlora`.",
        ),
        (
            {},
            (
                "adapter: is LoRA on a packed base model, but nothing packs it. "
                "Write `load_in_4bit: true`, or `adapter: lora`."
            ),
        ),
        (
            {"load_in_8bit": True, "bnb_4bit_quant_type": "fp4"},
            (
                "bnb_4bit_quant_type: has no effect: `load_in_4bit` is not set. "
                "Write `load_in_4bit: true`. Or remove this key."
            ),
        ),
        (
            {"quantization": {"scheme": "nf4", "block_size": 48}},
            "quantization.block_size: (=48) must be one of 32, 64, 128, 256, 512, 1024, 2048, 4096.",
        ),
        (
            {"quantization": {"scheme": "nf4", "blok_size": 64}},
            ("quantization.blok_size: The scheme 'nf4' has no option 'blok_size'. It has: block_size, double_quant."),
        ),
        (
            {"quantization": {"scheme": "int8", "skip": "lm_head"}},
            ("quantization.skip: must be a list of names of layers, not 'lm_head'. Write for example [lm_head]."),
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(keys, message):
    """Before a model is looked for."""
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(BASE | keys)
    assert str(caught.value) == message


def test_an_unknown_scheme_lists_the_known_ones():
    """And the nearest."""
    with pytest.raises(InvalidConfigError, match=r"called 'int9'\. Did you mean 'int8'\? Known: .*fp4.*nf4.*ternary"):
        parse_config(BASE | {"quantization": {"scheme": "int9"}})


def test_the_effective_config_keeps_every_option(tmp_path):
    """It reads back to the same config, nested values included."""
    config = parse_config(BASE | {"quantization": {"scheme": "int8", "granularity": "block", "skip": ["lm_head"]}})
    file = tmp_path / "effective.yaml"
    file.write_text(dump_effective(config), encoding="utf-8")
    assert load_config(file) == config


def test_the_form_of_axolotl_rs_is_answered():
    """It has no scheme; the known ones are listed, also those that plug-ins and other tests have registered."""
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(BASE | {"quantization": {"bits": 4, "quant_type": "nf4"}})
    known = ", ".join(schemes.names())
    assert str(caught.value) == (
        f"quantization.scheme: must name a scheme: {known}. Write `scheme: nf4` instead of `bits` and `quant_type`."
    )
