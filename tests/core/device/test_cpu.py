"""The CPU's row: always usable, named, with the memory that this process may really use."""

from __future__ import annotations

from bedstone.core.device.cpu import _memory, cpu_name, cpu_row

MEMINFO = "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    8192 kB\nHugePages_Total:       0\n"


def test_is_always_usable_and_complete():
    """On any machine."""
    row = cpu_row()
    assert (row.backend, row.verdict, row.code, row.device, row.remedy) == ("cpu", "usable", "OK", "cpu", "")
    assert row.name
    assert row.total_bytes is None or row.total_bytes >= (row.free_bytes or 0) > 0


def test_reads_name_and_memory_of_linux(tmp_path):
    """`MemAvailable` is what a program can have, `MemFree` is not."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 7763\nmodel name\t: AMD EPYC 7763\n")
    (tmp_path / "meminfo").write_text(MEMINFO)
    assert cpu_name(tmp_path / "cpuinfo") == "AMD EPYC 7763"
    assert _memory(tmp_path / "meminfo", tmp_path) == (16384 * 1024, 8192 * 1024)


def test_the_limit_of_a_container_counts(tmp_path):
    """A container with 4 MiB on a machine with 16 has 4, less what it uses."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "memory.max").write_text("4194304\n")
    (tmp_path / "memory.current").write_text("1048576\n")
    assert _memory(tmp_path / "meminfo", tmp_path) == (4194304, 3145728)
    (tmp_path / "memory.max").write_text(f"{2**40}\n")
    assert _memory(tmp_path / "meminfo", tmp_path) == (16384 * 1024, 8192 * 1024)
    (tmp_path / "memory.max").write_text("max\n")
    assert _memory(tmp_path / "meminfo", tmp_path) == (16384 * 1024, 8192 * 1024)


def test_what_cannot_be_read_is_unknown(tmp_path):
    """Free memory is not guessed from the total."""
    assert _memory(tmp_path / "absent", tmp_path)[1] is None
    assert cpu_name(tmp_path / "absent")
