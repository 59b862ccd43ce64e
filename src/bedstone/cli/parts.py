"""Which packages are installed, and which optional part of bedstone lacks what; nothing is imported to find out.

The parts are read from bedstone's own metadata, so a new extra shows up here by itself.
"""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bedstone.cli.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bedstone.cli.findings import Status

PURPOSE = {
    "train": "fine-tuning, that is `bedstone train` and `bedstone generate`",
    "gguf": "base models in GGUF files",
    "interop": "sharing memory with JAX, Numba, Warp and TVM-FFI",
    "kernels": "Triton's GPU kernels",
    "dev": "working on bedstone itself",
    "docs": "building the documentation of bedstone",
}
"""What an extra is for, in words that follow `for`."""

_OWN_WORK = {"dev", "docs"}

SINGLE_PACKAGES = {
    "accelerate": "used by transformers to place large models",
    "bitsandbytes": "quantized weights and optimizers on GPUs",
    "datasets": "data sets of the Hugging Face hub",
}
"""Packages that no extra asks for and that change what a machine can do."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of a package's metadata: a package, the least version, and the extra that asks for it, if any.

    >>> Requirement.parse('peft>=0.21; extra == "train"')
    Requirement(name='peft', minimum='0.21', extra='train')
    >>> Requirement.parse("types-PyYAML")
    Requirement(name='types-PyYAML', minimum='', extra='')
    """

    name: str
    minimum: str = ""
    extra: str = ""

    @classmethod
    def parse(cls, line: str) -> Requirement:
        """Return the requirement that a `Requires-Dist` line states."""
        wanted, _, condition = line.partition(";")
        name = re.match(r"[A-Za-z0-9._-]+", wanted)
        assert name, line  # the metadata was written by a build tool
        minimum = re.search(r">=\s*(\d+(?:\.\d+)*)", wanted)
        extra = re.search(r"extra\s*==\s*[\"']([^\"']+)", condition)
        return cls(name[0], minimum[1] if minimum else "", extra[1] if extra else "")

    def met_by(self, version: str) -> bool:
        """Tell whether an installed version is new enough.

        >>> Requirement("torch", "2.13").met_by("2.13.0+cpu"), Requirement("torch", "2.13").met_by("2.9.1")
        (True, False)
        """
        return _numbers(version) >= _numbers(self.minimum)


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, `None` when it is missing; imports nothing.

    >>> installed_version("no-such-package-anywhere") is None
    True
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def own_requirements() -> list[Requirement]:
    """Return what bedstone's metadata asks for; empty when bedstone runs without being installed."""
    try:
        lines = importlib.metadata.requires("bedstone") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Requirement.parse(line) for line in lines]


def check_parts(
    requirements: Iterable[Requirement], installed: Callable[[str], str | None] = installed_version
) -> list[Finding]:
    """Return a finding for the base, each extra and each package that changes what a machine can do.

    Args:
        requirements: What bedstone asks for.
        installed: Tells the version of a package.
    """
    requirements = list(requirements)
    extras = dict.fromkeys(requirement.extra for requirement in requirements)  # in the order of the metadata
    findings = [_check_part(extra, [r for r in requirements if r.extra == extra], installed) for extra in extras]
    return findings + [_check_single(name, use, installed(name)) for name, use in SINGLE_PACKAGES.items()]


def _check_part(extra: str, wanted: list[Requirement], installed: Callable[[str], str | None]) -> Finding:
    have = {requirement: installed(requirement.name) for requirement in wanted}
    lacking = [requirement.name for requirement, version in have.items() if version is None]
    old = [f"{r.name} {v} (needs {r.minimum})" for r, v in have.items() if v is not None and not r.met_by(v)]
    subject = f"bedstone[{extra}]" if extra else "bedstone"
    if not lacking and not old:
        return _part(subject, "ok", ", ".join(f"{r.name} {version}" for r, version in have.items()))
    gaps = [f"missing {', '.join(lacking)}"] if lacking else []
    gaps += [f"too old: {', '.join(old)}"] if old else []
    text = "; ".join(gaps) + (f"; only for {PURPOSE.get(extra, 'this extra')}" if extra else "")
    status = "bad" if not extra else "ok" if extra in _OWN_WORK else "look"
    upgrade = "--upgrade " if old else ""
    return _part(subject, status, text, f"pip install {upgrade}'{subject}'")


def _check_single(name: str, use: str, version: str | None) -> Finding:
    if version is not None:
        return _part(name, "ok", f"{version} ({use})")
    return _part(name, "ok", f"not installed and not needed ({use}); pip install {name}")


def _part(subject: str, status: Status, text: str, remedy: str = "") -> Finding:
    return Finding(topic="parts", subject=subject, status=status, text=text, remedy=remedy)
