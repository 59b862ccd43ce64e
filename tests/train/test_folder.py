"""A run writes into a folder that is free or its own, never over what somebody else keeps there."""

from __future__ import annotations

import pytest

import bedstone as bs
from bedstone.core.errors import StorageError
from bedstone.train.folder import RunFolder


@pytest.mark.parametrize("name", ["config.yaml", "model", "adapter", "checkpoints", "summary.json", "report.html"])
@pytest.mark.parametrize("resume", [None, "auto"])
def test_what_no_run_has_written_is_never_overwritten(config, tmp_path, name, resume):
    """`output_dir: .` beside a configuration called config.yaml, or beside the folder of the base model."""
    (tmp_path / name).write_text("of the user")
    with pytest.raises(StorageError) as caught:
        bs.finetune(config(output_dir=str(tmp_path)), resume=resume)
    assert str(caught.value) == (
        f"{tmp_path} holds {name}, which no run has written; nothing was touched. Set another `output_dir`."
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "of the user"


def test_other_things_in_the_folder_do_not_matter(tmp_path):
    """A run leaves them alone."""
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder(tmp_path).refuse_foreign()


def test_a_file_in_the_way_is_named(config, tmp_path):
    """Of the folder itself, or of one above it."""
    (tmp_path / "taken").write_text("")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "run"):
        with pytest.raises(StorageError, match=r"Could not make the run folder at .*taken.*Set `output_dir`"):
            bs.finetune(config(output_dir=str(folder)))
