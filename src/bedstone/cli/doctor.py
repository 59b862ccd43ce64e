"""`bedstone doctor`: what this installation and machine can do, a line each, and what to do about what they cannot.

The checks stand in files of their own and return findings; here they are gathered and shown. A new check is a function
that returns findings, called in `examine`.
"""

from __future__ import annotations

import json
import os
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from bedstone.cli.errors import Debug, boundary, printable
from bedstone.cli.findings import Finding, worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from bedstone.core.device import DeviceReport
    from bedstone.core.registry import PluginStatus

_STYLES = {"ok": "green", "look": "yellow", "bad": "bold red"}


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object instead of text.")] = False,
    debug: Debug = False,
) -> None:
    """Say what this installation and machine can do.

    Devices, versions, optional parts, plug-ins, environment variables and room; exit code 1 when something is broken.
    """
    with boundary(context, debug=debug):
        from bedstone.core.registry import plugin_report

        plugins = plugin_report()
        report, complaint = _device_report()
        findings = [*complaint, *examine(report, plugins)]
        if as_json:
            typer.echo(json.dumps(to_json(findings, report, plugins), indent=2))
        else:
            from rich.console import Console

            show(findings, Console(highlight=False))
        if worst(findings) == "bad":
            raise typer.Exit(1)


def examine(report: DeviceReport | None, plugins: Sequence[PluginStatus]) -> list[Finding]:
    """Run every check.

    Args:
        report: What `device_report()` returned; `None` when the environment asks for no valid device.
        plugins: What `plugin_report()` returned.
    """
    from bedstone.cli import checks, environment, parts
    from bedstone.core.registry import GROUPS

    deciding = "" if report is None else report.source
    return [
        *(checks.check_devices(report) if report is not None else []),
        *checks.check_versions(),
        *checks.check_cpu_library(),
        *parts.check_parts(parts.own_requirements()),
        *checks.check_plugins(plugins, GROUPS),
        *environment.check_environment(os.environ, deciding),
        *checks.check_room(checks.Room.measure()),
    ]


def _device_report() -> tuple[DeviceReport | None, list[Finding]]:
    from bedstone.core.device import DeviceConfig, device_report
    from bedstone.core.errors import CoreError

    try:
        return device_report(DeviceConfig.from_env()), []
    except CoreError as error:  # a variable that asks for no valid device: the other checks still help
        return None, [Finding(topic="devices", subject="choice", status="bad", text=str(error))]


def to_json(
    findings: Sequence[Finding], report: DeviceReport | None, plugins: Iterable[PluginStatus]
) -> dict[str, object]:
    """Return everything for programs: the worst status, the findings, and the device and plug-in facts in full."""
    return {
        "status": worst(findings),
        "findings": [finding.to_dict() for finding in findings],
        "devices": None if report is None else report.to_dict(),
        "plugins": [
            {"group": p.group, "name": p.name, "target": p.target, "distribution": p.distribution, "ok": p.ok}
            for p in plugins
        ],
    }


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings under their topics, then one sentence on how things stand.

    Args:
        findings: What the checks returned.
        console: Where to. A terminal gets lines of its width, a file gets long ones.
    """
    width = console.width if console.is_terminal else None
    for topic in dict.fromkeys(finding.topic for finding in findings):
        _print(console, topic, "bold")
        for finding in (finding for finding in findings if finding.topic == topic):
            head, *rest = _lines(finding, width)
            console.print(f"  {finding.status:<5}", style=_STYLES[finding.status], end="")
            _print(console, head)
            for line in rest:
                _print(console, f"       {line}")
    _print(console, "")
    _print(console, _verdict(findings), _STYLES[worst(findings)])


def _lines(finding: Finding, width: int | None) -> list[str]:
    texts = [f"{finding.subject}: {finding.text}"]
    texts += [f"-> {finding.remedy}"] if finding.remedy else []
    lines = [line for text in texts for line in printable(text).splitlines()]
    if width:  # seven columns stand before each line
        lines = [part for line in lines for part in textwrap.wrap(line, max(30, width - 7))]
    return lines + printable(finding.details).splitlines()


def _verdict(findings: Sequence[Finding]) -> str:
    looks = sum(finding.status == "look" for finding in findings)
    broken = [f"{finding.topic}, {finding.subject}" for finding in findings if finding.status == "bad"]
    if broken:
        return f"Broken: {'; '.join(broken)}."
    if looks:
        return (
            f"Nothing is broken. {looks} line{'s' if looks > 1 else ''} above deserve{'' if looks > 1 else 's'} a look."
        )
    return "Everything is in order."


def _print(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
