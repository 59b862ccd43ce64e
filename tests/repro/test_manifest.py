"""A manifest can be made anywhere, always in the same order, in less than a second."""

import json
import os
import subprocess
import time
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from bedstone.repro.files import write_json_atomic
from bedstone.repro.manifest import _environment, manifest

SECTIONS = [
    "format",
    "version",
    "created",
    "config",
    "data",
    "seeds",
    "source",
    "packages",
    "python",
    "torch",
    "flags",
    "platform",
    "devices",
    "environment",
]


def git(folder, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sections_come_in_a_fixed_order_and_the_file_says_the_same(tmp_path):
    made = manifest(config={"lr": 1e-3}, data={"train": "ab" * 32}, seeds={"run": 42})
    assert list(made) == SECTIONS
    write_json_atomic(tmp_path / "manifest.json", made)
    assert json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8")) == made
    assert (made["config"], made["data"], made["seeds"]) == ({"lr": 1e-3}, {"train": "ab" * 32}, {"run": 42})
    assert list(made["packages"]) == sorted(made["packages"])


def test_versions_are_those_of_this_process():
    made = manifest()
    assert made["packages"]["torch"] == torch.__version__ == made["torch"]["version"]
    assert made["packages"]["numpy"] == np.__version__
    assert made["torch"]["git"] == torch.version.git_version
    assert "no-such-package" not in made["packages"]


def test_it_says_when_it_was_made():
    made = datetime.fromisoformat(manifest()["created"])
    assert abs((datetime.now(UTC) - made).total_seconds()) < 60


def test_flags_follow_torch():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(True)
        flags = manifest()["flags"]
        assert flags["float32_matmul_precision"] == "medium"
        assert flags["deterministic_algorithms"] is True
    finally:
        torch.set_float32_matmul_precision(before)
        torch.use_deterministic_algorithms(False)
    assert manifest()["flags"]["deterministic_algorithms"] is False
    assert manifest()["flags"]["threads"] == torch.get_num_threads()


def test_variables_that_change_numbers_are_listed_and_others_are_not():
    given = {
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "NVIDIA_TF32_OVERRIDE": "0",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "PYTHONHASHSEED": "0",
        "PYTORCH_ALLOC_CONF": "a",
        "PYTORCH_CUDA_ALLOC_CONF": "b",
        "BEDSTONE_FORCE_CPU": "1",
    }
    found = _environment(given | {"HF_TOKEN": "secret", "HOME": "/root", "API_KEY": "secret"})
    assert found == given
    assert list(found) == sorted(given)


def test_the_environment_is_that_of_the_process(monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert manifest()["environment"]["PYTHONHASHSEED"] == "7"


def test_a_clean_repository_has_a_commit_and_no_difference(repository):
    source = manifest()["source"]
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    assert source == {"commit": done.stdout.strip(), "diff_sha256": None, "untracked_files": 0}


def test_a_changed_file_changes_the_hash_of_the_difference(repository):
    hashes = []
    for text in ("a = 2\n", "a = 3\n", "a = 2\n"):
        (repository / "a.py").write_text(text)
        hashes.append(manifest()["source"]["diff_sha256"])
    assert hashes[0] == hashes[2] != hashes[1]
    assert len(hashes[0]) == 64


def test_new_files_are_counted(repository):
    (repository / "b.py").write_text("")
    (repository / "c.py").write_text("")
    assert manifest()["source"]["untracked_files"] == 2


def test_a_repository_runs_no_command_of_its_own(repository):
    (repository / "evil.sh").write_text(f"#!/bin/sh\ntouch {repository}/ran\n")
    (repository / "evil.sh").chmod(0o755)
    git(repository, "config", "core.fsmonitor", "./evil.sh")
    git(repository, "config", "diff.external", "./evil.sh")
    (repository / "a.py").write_text("a = 2\n")
    manifest()
    assert not (repository / "ran").exists()


def test_outside_of_a_repository_there_is_no_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert manifest()["source"] is None


def test_without_git_there_is_no_source(repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository / "nowhere"))
    assert manifest()["source"] is None


def test_it_takes_less_than_a_second(repository):
    durations = []
    for _ in range(5):
        start = time.perf_counter()
        manifest()
        durations.append(time.perf_counter() - start)
    assert min(durations) < 1.0


@pytest.mark.skipif(torch.accelerator.is_available(), reason="says what a machine without an accelerator says")
def test_a_machine_without_an_accelerator_says_so():
    assert manifest()["devices"]["count"] == 0
    assert manifest()["devices"]["initialized"] == []
    assert manifest()["platform"]["cores"] == os.cpu_count()


def test_a_folder_that_was_removed_has_no_source(tmp_path, monkeypatch):
    """A job's working folder may be gone before the job is."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert manifest()["source"] is None
