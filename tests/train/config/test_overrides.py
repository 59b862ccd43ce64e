"""`--set key=value`: laid over the file's values, read by the file's rules, refused by name."""

from __future__ import annotations

import pytest

from bedstone.train.config.overrides import apply_overrides

FILE = {"seed": 1, "datasets": [{"type": "alpaca", "path": "a.jsonl"}], "test_datasets": None}


def after(*overrides: str) -> dict:
    values, _, problems = apply_overrides(FILE, overrides)
    assert not problems
    return values


def test_a_value_is_read_as_yaml():
    """Numbers, lists and text, exponents included."""
    values = after("learning_rate=5e-4", "lora_target_modules=[q_proj, v_proj]", "device=cuda:1")
    assert values["learning_rate"] == pytest.approx(5e-4)
    assert (values["lora_target_modules"], values["device"]) == (["q_proj", "v_proj"], "cuda:1")


def test_a_value_may_hold_an_equals_sign():
    """Only the first one parts key and value."""
    assert after("base_model=a=b")["base_model"] == "a=b"


def test_the_later_override_wins_and_the_file_is_left_alone():
    """The values given are not changed."""
    assert after("seed=2", "seed=3")["seed"] == 3
    assert FILE["seed"] == 1


def test_a_path_reaches_into_lists_in_both_spellings():
    """An entry, and the place after the last one."""
    assert after("datasets.0.limit=5") == after("datasets[0].limit=5")
    assert after("datasets.1.type=stdlib_docstrings")["datasets"][1] == {"type": "stdlib_docstrings"}
    assert after("test_datasets.0.type=alpaca")["test_datasets"] == [{"type": "alpaca"}]
    assert after("message.0=x")["message"] == ["x"]


def test_an_empty_value_takes_the_key_away():
    """So that its default holds again; taking away what is not there is no error."""
    assert after("seed=", "datasets.0.path=null", "absent=") == {
        "datasets": [{"type": "alpaca"}],
        "test_datasets": None,
    }
    assert after("datasets.0=")["datasets"] == []


def test_tells_what_it_changed():
    """The origins of the effective config come from it."""
    assert apply_overrides(FILE, {"datasets.0.limit": "5", "seed": "2"})[1] == ["datasets[0].limit", "seed"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "`seed` is no override: write key=value, for example lora_r=16."),
        ("=3", "is no override: write key=value, for example lora_r=16."),
        ("seed=[1", "`seed` is not YAML: expected ',' or ']', but got '<stream end>'. The text was '[1'."),
        ("seed.x=1", "`seed.x` cannot be set: what holds 'x' is a single value, not a mapping or a list."),
        ("datasets.x=1", "`datasets.x` cannot be set: 'x' must be the number of an entry, since a list holds it."),
        ("datasets.5.x=1", "`datasets[5].x` cannot be set: the list has 1 entries, counted from 0."),
        ("datasets.1=", "`datasets[1]` cannot be taken away: the list has 1 entries, counted from 0."),
    ],
)
def test_an_override_that_fits_nowhere_is_named(override, message):
    """The rest of the values stay as they are."""
    values, changed, problems = apply_overrides(FILE, [override])
    assert ([str(problem) for problem in problems], changed) == ([message], [])
    assert values == FILE
