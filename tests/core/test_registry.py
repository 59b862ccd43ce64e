"""Registries: names to members, plug-ins by entry point, a broken plug-in breaks nothing until asked for."""

from __future__ import annotations

import sys

import pytest

from bedstone.core.errors import InvalidConfigError, PluginError, UnknownNameError
from bedstone.core.registry import GROUPS, Registry, plugin_report


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A really installed distribution with one good, one broken and one clashing entry point."""
    package = tmp_path / "acme.py"
    package.write_text("MEMBER = 'a member'\nINTERRUPT = False\n")
    (tmp_path / "acme_broken.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "acme_quits.py").write_text("raise SystemExit('no licence')\n")
    (tmp_path / "acme_stops.py").write_text(
        "import acme\nif acme.INTERRUPT: raise KeyboardInterrupt\nMEMBER = 'late'\n"
    )
    info = tmp_path / "acme-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[bedstone.datasets]\ngood = acme:MEMBER\nbad = acme_broken:MEMBER\ntaken = acme:MEMBER\n"
        "[bedstone.trackers]\nquits = acme_quits:MEMBER\n"
        "[bedstone.kernels]\nstops = acme_stops:MEMBER\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("acme", "acme_broken", "acme_quits", "acme_stops"):
        sys.modules.pop(name, None)


def registry() -> Registry[str]:
    members = Registry[str]("data format", "bedstone.datasets")
    members.add("taken", "ours")
    return members


def test_refuses_to_replace_an_entry():
    """Nothing is replaced in silence."""
    members = registry()
    with pytest.raises(InvalidConfigError) as caught:
        members.add("taken", "theirs")
    assert str(caught.value) == ("The data format 'taken' is already registered as 'ours'. Choose another name.")


def test_an_unknown_name_lists_the_known_and_the_nearest():
    """The usual mistake is a typing slip."""
    members = Registry[int]("colour")
    members.add("red", 1)
    members.add("green", 2)
    with pytest.raises(UnknownNameError) as caught:
        members.get("gren")
    assert str(caught.value) == "No colour is called 'gren'. Did you mean 'green'? Known: green, red."


def test_a_default_replaces_the_error_also_when_it_is_none():
    """None is a value like any other."""
    assert registry().get("nothing", None) is None


def test_a_plugin_is_found_by_name(installed):
    """Installing the package is all a user does."""
    assert registry().get("good") == "a member"


def test_a_broken_plugin_raises_only_when_asked_for(installed):
    """Others stay usable; the error names plug-in, package and its own failure."""
    members = registry()
    assert members.names() == ("taken", "good")
    with pytest.raises(PluginError) as caught:
        members.get("bad")
    assert str(caught.value) == (
        "The plug-in 'bad' (acme_broken:MEMBER of acme 1.2) does not load: ModuleNotFoundError: No module named "
        "'no_such_module_anywhere' Run `bedstone doctor` for the whole traceback, then update or uninstall that package."
    )
    assert "Traceback" in caught.value.traceback


def test_a_plugin_never_takes_a_name_of_ours(installed):
    """The clash is reported, ours stays."""
    members = registry()
    assert members.get("taken") == "ours"
    assert any("already taken" in status.traceback for status in members.broken())


def test_the_report_covers_every_group(installed):
    """Doctor shows good and broken alike."""
    found = {status.name: status for status in plugin_report() if status.distribution == "acme 1.2"}
    assert found["good"].ok
    assert not found["bad"].ok
    assert found["bad"].group == "bedstone.datasets"


def test_an_unknown_group_is_refused():
    """A misspelt group would never find a plug-in."""
    with pytest.raises(InvalidConfigError, match="must be one of"):
        Registry[int]("thing", "bedstone.things")
    assert len(GROUPS) == 5


def test_a_plugin_that_quits_the_program_while_it_is_imported_is_only_broken(installed):
    """`sys.exit` in a package that somebody else installed must not end ours."""
    with pytest.raises(
        PluginError, match=r"'quits' \(acme_quits:MEMBER of acme 1.2\) does not load: SystemExit: no lic"
    ):
        Registry[str]("tracker", "bedstone.trackers").get("quits")


def test_after_ctrl_c_plugins_are_read_again(installed, monkeypatch):
    """An interrupted look-up must not leave a registry without its plug-ins for good."""
    import acme

    monkeypatch.setattr(acme, "INTERRUPT", True)
    kernels = Registry[str]("kernel", "bedstone.kernels")
    with pytest.raises(KeyboardInterrupt):
        kernels.names()
    monkeypatch.setattr(acme, "INTERRUPT", False)
    assert kernels.names() == ("stops",)


def test_a_plugin_may_register_itself_too(installed):
    """The decorator and the entry point name the same object: that is no clash."""
    import acme

    members = registry()
    members.add("good", acme.MEMBER)
    assert members.get("good") == "a member"
    assert [status.name for status in members.broken()] == ["bad", "taken"]


def test_a_package_without_metadata_is_said_to_be_one(installed, tmp_path):
    """A damaged installation has entry points and no name."""
    (tmp_path / "acme-1.2.dist-info" / "METADATA").unlink()
    with pytest.raises(PluginError, match="of a package without metadata"):
        registry().get("bad")
