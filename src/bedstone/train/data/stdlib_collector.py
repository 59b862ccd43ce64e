"""The program that collects the docstrings of the standard library; prints them as JSON.

`stdlib_docstrings.py` runs this file with `python -I -S`, so it uses nothing but the standard library. It has a process
of its own since it imports some 280 modules: their warnings, prints and side effects stay here. `-I -S` keeps the
current folder, the environment and installed packages out, any of which could replace a module.

A row is a question (`What does json.dumps do in Python?`) and the first sentences of the docstring, 20 to 300
characters. Whole top-level modules are held out, chosen by a hash of their name, so that a held-out question is about a
module that training never mentions; held-out answers that nearly repeat a training answer are dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import io
import json
import pkgutil
import re
import sys
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# They act on import, need a display, hold no API of interest, or are patched by packaging tools (distutils).
SKIPPED = frozenset(
    {
        *("antigravity", "distutils", "ensurepip", "genericpath", "idlelib", "lib2to3", "nt", "ntpath", "posix"),
        *("posixpath", "pydoc_data", "test", "this", "tkinter", "turtle", "turtledemo", "xxlimited", "xxsubtype"),
    }
)
ROUTINES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
)
# A first paragraph that is a signature says nothing: `range(stop) -> range object`.
SIGNATURE = re.compile(r"^[\w.]+\s*\(.*\)?\s*(->.*|:)?$|^[\w.]+\(|->")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(])")
MIN_CHARS, MAX_CHARS = 20, 300
NEAR_DUPLICATE = 0.7  # Jaccard similarity of two sets of words
HELD_OUT_PER_256 = 32


class Found(NamedTuple):
    """A docstring under one of its names; in sorting order, the shortest and truest name comes first."""

    dots: int
    is_alias: bool
    name: str
    question: str
    answer: str
    module: str


def module_names() -> Iterator[str]:
    """Yield the public modules of the standard library, packages expanded."""
    for top in sorted(sys.stdlib_module_names):
        if top.startswith("_") or top in SKIPPED:
            continue
        yield top
        spec = importlib.util.find_spec(top)
        # The hundred codecs in `encodings` all say the same.
        if spec is not None and spec.submodule_search_locations and top != "encodings":
            yield from _submodules(top, list(spec.submodule_search_locations))
    yield "os.path"


def _submodules(prefix: str, folders: list[str]) -> Iterator[str]:
    for info in sorted(pkgutil.iter_modules(folders), key=lambda info: info.name):
        if info.name.startswith("_") or info.name in {"test", "tests"}:
            continue
        yield f"{prefix}.{info.name}"
        if info.ispkg:
            yield from _submodules(f"{prefix}.{info.name}", [str(Path(folders[0]) / info.name)])


def summary(doc: object) -> str | None:
    r"""Return the leading sentences of a docstring's first paragraph that fit, or `None` when it has none.

    >>> summary("Return the sum.\n\nMore.") is None, summary("Return the sum of all items.\n\nMore.")
    (True, 'Return the sum of all items.')
    """
    if not isinstance(doc, str):
        return None
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", inspect.cleandoc(doc))]
    while paragraphs and SIGNATURE.search(paragraphs[0]):
        paragraphs.pop(0)
    if not paragraphs or ">>>" in paragraphs[0]:
        return None
    text = ""
    for sentence in SENTENCE_END.split(paragraphs[0]):
        longer = f"{text} {sentence}".strip()
        if len(longer) > MAX_CHARS:
            break
        text = longer
    return text if len(text) >= MIN_CHARS and text[0].isalpha() and text[-1] in ".!?)" else None


def members(module: types.ModuleType) -> Iterator[tuple[str, object]]:
    """Yield the public functions and classes that a module owns or exports, and the classes' own public methods."""
    exported = set(getattr(module, "__all__", ()))
    for name, thing in sorted(vars(module).items()):
        if name.startswith("_") or not (inspect.isclass(thing) or isinstance(thing, ROUTINES)):
            continue
        if name not in exported and getattr(thing, "__module__", None) != module.__name__:
            continue
        yield name, thing
        if inspect.isclass(thing):
            for attribute, value in sorted(vars(thing).items()):
                inner = getattr(value, "__func__", value)  # of a static or class method
                if not attribute.startswith("_") and isinstance(inner, ROUTINES):
                    yield f"{name}.{attribute}", inner


def found_in(module_name: str) -> Iterator[Found]:
    """Yield the documented members of one module; a module that does not import here has none."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            module = importlib.import_module(module_name)
    except Exception:  # noqa: BLE001 - modules of other platforms fail in many ways, and are no data
        return
    for member, thing in members(module):
        answer = summary(getattr(thing, "__doc__", None))
        if answer:
            name = member if module_name == "builtins" else f"{module_name}.{member}"
            question = f"What is the class `{name}` in Python?" if inspect.isclass(thing) else ""
            question = question or f"What does `{name}` do in Python?"
            is_alias = getattr(thing, "__name__", "") != name.rpartition(".")[2]
            yield Found(name.count("."), is_alias, name, question, answer, module_name.split(".", maxsplit=1)[0])


def rows() -> list[dict[str, str]]:
    """Return one row an answer, under its best name, in the order of a hash of the question."""
    seen: set[str] = set()
    result = []
    for found in sorted(found for name in module_names() for found in found_in(name)):
        key = re.sub(r"\W+", " ", found.answer).lower().strip()
        if key not in seen:
            seen.add(key)
            result.append({"question": found.question, "answer": found.answer, "module": found.module})
    return sorted(result, key=lambda row: _digest(row["question"]))


def split(everything: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Return the rows as `train` and `heldout`, by module, without held-out answers that repeat a training answer."""
    parts: dict[str, list[dict[str, str]]] = {"train": [], "heldout": []}
    for row in everything:
        held_out = int(_digest(row["module"])[:2], 16) < HELD_OUT_PER_256
        parts["heldout" if held_out else "train"].append(row)
    known = [_words(row["answer"]) for row in parts["train"]]
    parts["heldout"] = [row for row in parts["heldout"] if not _repeats(_words(row["answer"]), known)]
    return parts


def _repeats(words: frozenset[str], known: list[frozenset[str]]) -> bool:
    return any(len(words & other) >= NEAR_DUPLICATE * len(words | other) for other in known)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # deprecated modules are rows like any other
    json.dump(split(rows()), sys.stdout)
