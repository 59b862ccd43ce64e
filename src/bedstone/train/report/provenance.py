"""What went in and what came out: data, device, configuration, manifest, and how to use the adapter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bedstone.train.report.markup import Html, element, foreign, join
from bedstone.train.report.table import Number, folded, table
from bedstone.train.report.wording import say_count, say_plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedstone.train.report.read import Record, RunFiles
    from bedstone.train.report.story import Story

_DEEPEST = 6
_DATA_FIELDS = ("rows", "tokens", "trained_tokens", "truncated", "dropped")


def usage_section(story: Story) -> Html:
    """Return the lines of Python that load what the run made."""
    title = element("h2", "Use it")
    if not story.finished or not story.start:
        return element("section", title, element("p", "The adapter is written when the run finishes."))
    made = story.finished.text("adapter")
    if not made:
        return element("section", title, element("p", "The run did not say where it wrote its result."))
    code = element("pre", element("code", _usage(story, story.start, made)), dir="ltr")
    ask = join([element("code", 'bedstone generate RUN "prompt"'), " does the same from the command line."])
    return element("section", title, code, element("p", ask, class_="note"))


def _usage(story: Story, start: Record, made: str) -> str:
    every, trained = start.number("parameters"), start.number("trainable_parameters")
    if every is not None and every == trained:  # full fine-tuning: the result is a model, not an adapter
        lines = [
            "from transformers import AutoModelForCausalLM",
            f"model = AutoModelForCausalLM.from_pretrained({made!r})",
        ]
        return "\n".join(lines)
    # The adapter knows the folder its base was loaded from, also when that was converted from another format.
    lines = [
        "from peft import PeftConfig, PeftModel",
        "from transformers import AutoModelForCausalLM",
        f"base = PeftConfig.from_pretrained({made!r}).base_model_name_or_path",
        f"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), {made!r})",
    ]
    if story.packed:  # the adapter was trained on the packed weights, so it fits those best
        lines[0:0] = ["from bedstone import quant"]
        packed = f"packed = quant.BedstoneConfig({story.packed.fields.get('options')!r})"
        base = "AutoModelForCausalLM.from_pretrained(base, quantization_config=packed)"
        lines[-1:] = [packed, f"model = PeftModel.from_pretrained({base}, {made!r})"]
    return "\n".join(lines)


def data_section(story: Story) -> Html:
    """Return what the data came to, split by split."""
    title = element("h2", "Data")
    if not story.data:
        return element("section", title, element("p", "No data has been prepared yet."))
    head = ["Split", *(Number(name) for name in ("Rows", "Tokens", "Trained tokens", "Truncated", "Dropped"))]
    rows = [
        [foreign(split or "unnamed"), *(Number(say_count(record.number(field))) for field in _DATA_FIELDS)]
        for split, record in story.data.items()
    ]
    caption = "Trained tokens count towards the loss; truncated and dropped are rows longer than sequence_len."
    return element("section", title, table(caption, head, rows))


def device_section(story: Story) -> Html:
    """Return the device and why it was chosen."""
    title = element("h2", "Device")
    if not story.device:
        return element("section", title, element("p", "No device has been chosen yet."))
    chosen = story.device
    asked = join([" was used; ", element("code", foreign(chosen.text("requested") or "unknown")), " was asked for"])
    source = join([" by ", foreign(chosen.text("source"))]) if chosen.text("source") else ""
    first = element("p", element("strong", foreign(chosen.text("device"))), asked, source, ".")
    reason = chosen.text("reason")
    return element("section", title, first, element("p", "Why: ", foreign(reason)) if reason else None)


def config_section(files: RunFiles) -> Html:
    """Return the effective configuration, word for word."""
    title = element("h2", "Configuration")
    if files.config is None:
        return element("section", title, element("p", "The run folder has no config.yaml."))
    about = element("p", "The values in effect, each with its origin, as config.yaml holds them.", class_="note")
    code = element("pre", element("code", files.config), dir="ltr", tabindex=0, aria_label="config.yaml")
    return element("section", title, about, folded(say_plural(files.config.count("\n"), "line"), code))


def manifest_section(files: RunFiles) -> Html:
    """Return the manifest as a table that opens on a click."""
    title = element("h2", "Manifest")
    if files.manifest is None:
        return element("section", title, element("p", files.manifest_problem))
    rows = [[foreign(name), foreign(value)] for name, value in flatten(files.manifest)]
    about = element("p", "Versions, flags and machine: what the numbers of this run depend on.", class_="note")
    shown = table("The manifest, nested names joined by dots.", ["Fact", "Value"], rows, class_="manifest")
    return element("section", title, about, folded(say_plural(len(rows), "fact"), shown))


def flatten(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield each value of a nested JSON value with its dotted name; what is nested deeper than six levels as JSON.

    >>> list(flatten({"torch": {"version": "2.13"}, "seeds": [1, 2]}))
    [('torch.version', '2.13'), ('seeds', '[1, 2]')]
    """
    if isinstance(value, dict) and value and depth < _DEEPEST:
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value) and depth < _DEEPEST:
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{name}[{index}]", depth + 1)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
