"""Cores and memory are those that this process may use, read from a machine laid out in a folder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedstone.cli.machine import Cores, free_memory_bytes, usable_cores


def lay_out(root, files):
    """Write a machine's files."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def siblings(*groups):
    """The topology files of cores with these hyper-threads."""
    folder = "sys/devices/system/cpu"
    return {f"{folder}/cpu{cpu}/topology/thread_siblings_list": group for group in groups for cpu in group.split(",")}


def test_two_hyper_threads_of_a_core_count_once(tmp_path):
    """They share the arithmetic."""
    root = lay_out(tmp_path, siblings("0,4", "1,5", "2,6", "3,7"))
    assert usable_cores(root, allowed=frozenset(range(8))) == Cores(4, "4 physical cores, 8 hyper-threads")


def test_only_cores_that_the_process_may_run_on_count(tmp_path):
    """The command taskset and containers narrow it."""
    root = lay_out(tmp_path, siblings("0,4", "1,5", "2,6", "3,7"))
    assert usable_cores(root, allowed=frozenset({1, 5, 6})) == Cores(2, "2 physical cores, 3 hyper-threads")


def test_without_topology_each_cpu_is_a_core(tmp_path):
    """Some virtual machines tell nothing."""
    assert usable_cores(tmp_path, allowed=frozenset({0, 3})) == Cores(2, "2 physical cores")
    assert usable_cores(tmp_path, allowed=frozenset({0})) == Cores(1, "1 physical core")


def test_a_quota_of_the_cgroup_is_rounded_down(tmp_path):
    """Three threads on two and a half CPUs would wait for each other."""
    root = lay_out(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"})
    assert usable_cores(root, allowed=frozenset(range(8))) == Cores(2, "the cgroup allows 2.5 of 8 physical cores")


@pytest.mark.parametrize(("pod", "slice_"), [("max", "50000"), ("300000", "50000"), ("50000", "300000")])
def test_the_tightest_quota_on_the_way_to_the_root_counts(tmp_path, pod, slice_):
    """A pod inside a slice inside the machine."""
    files = {
        "proc/self/cgroup": "1:cpu:/old\n0::/slice/pod\n",
        "sys/fs/cgroup/slice/pod/cpu.max": f"{pod} 100000\n",
        "sys/fs/cgroup/slice/cpu.max": f"{slice_} 100000\n",
    }
    assert usable_cores(lay_out(tmp_path, files), allowed=frozenset(range(4))).count == 1


def test_a_quota_above_the_cores_changes_nothing(tmp_path):
    """It cannot be used up."""
    root = lay_out(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000\n"})
    assert usable_cores(root, allowed=frozenset(range(2))) == Cores(2, "2 physical cores")


@given(st.frozensets(st.integers(0, 63), min_size=1))
def test_there_is_at_least_one_core_and_never_more_than_cpus(allowed):
    """Whatever the mask."""
    assert 1 <= usable_cores(allowed=allowed).count <= len(allowed)


def test_free_memory_is_the_least_of_machine_and_cgroup(tmp_path):
    """A container dies at its own limit."""
    files = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n", "proc/self/cgroup": "0::/\n"}
    assert free_memory_bytes(lay_out(tmp_path, files)) == 8000 * 1024
    limited = {"sys/fs/cgroup/memory.max": "5000000\n", "sys/fs/cgroup/memory.current": "3000000\n"}
    assert free_memory_bytes(lay_out(tmp_path, limited)) == 2_000_000
    wide = {"sys/fs/cgroup/memory.max": "99000000\n"}
    assert free_memory_bytes(lay_out(tmp_path, wide)) == 8000 * 1024
    assert free_memory_bytes(lay_out(tmp_path, {"sys/fs/cgroup/memory.max": "max\n"})) == 8000 * 1024


def test_unknown_memory_is_none(tmp_path):
    """Not Linux; nothing is guessed."""
    assert free_memory_bytes(tmp_path) is None
