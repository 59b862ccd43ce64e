"""Builds ggml for this CPU, to compare with: its source from PyPI, a release build, and the small library that calls it.

    python benchmarks/build_ggml.py

The source comes with llama-cpp-python, which holds llama.cpp, which holds ggml. It is built as its users build it, for the machine at hand
(`GGML_NATIVE`), with OpenMP, into `~/.cache/bedstone/ggml` (or below the folder that `BEDSTONE_CACHE` names), once: two minutes on two
cores. Needs g++ and cmake. Where something is missing the benchmark leaves ggml out and its result file says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SOURCE, VERSION = "llama-cpp-python", "0.3.36"
HERE = Path(__file__).parent
SHIM = HERE / "ggml_shim.cpp"
OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DGGML_NATIVE=ON", "-DGGML_OPENMP=ON")
# llama.cpp's ggml is built as a part of something; what it takes to stand alone is not in it.
PROJECT = "cmake_minimum_required(VERSION 3.14)\nproject(beside_bedstone C CXX)\nadd_subdirectory(source)\n"


def folder() -> Path:
    """Return where it is built."""
    cache = os.environ.get("BEDSTONE_CACHE") or Path.home() / ".cache" / "bedstone"
    return Path(cache) / "ggml" / VERSION


def library() -> Path | None:
    """Return the library that calls ggml, if it is built from the present shim."""
    path = folder() / "libggml_shim.so"
    fresh = path.is_file() and path.stat().st_mtime >= SHIM.stat().st_mtime
    return path if fresh else None


def build() -> Path:
    """Build what is not built yet.

    Returns:
        The library that calls ggml.

    Raises:
        RuntimeError: It cannot be built here, with the reason.
    """
    if found := library():
        return found
    for tool in ("cmake", "g++"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"{tool} is not installed")
    target = folder()
    target.mkdir(parents=True, exist_ok=True)
    if not (target / "source").is_dir():
        _fetch(target)
    if not (target / "lib" / "libggml.so").exists():
        print(f"building ggml in {target} (minutes, once)", flush=True)
        places = (
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target / 'lib'}",
            f"-DCMAKE_RUNTIME_OUTPUT_DIRECTORY={target / 'lib'}",
        )
        (target / "CMakeLists.txt").write_text(PROJECT)
        _run("cmake", "-S", str(target), "-B", str(target / "build"), *OPTIONS, *places)
        _run("cmake", "--build", str(target / "build"), "--target", "ggml", "--parallel", str(os.cpu_count() or 1))
    return _compile(target)


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        words = ("pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
        _run(sys.executable, "-m", *words, "--no-binary", SOURCE, "-d", scratch, f"{SOURCE}=={VERSION}")
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            inside = [each for each in packed.getmembers() if "/vendor/llama.cpp/ggml/" in each.name]
            packed.extractall(scratch, members=inside, filter="data")
        (source,) = Path(scratch).glob("*/vendor/llama.cpp/ggml")
        source.rename(target / "source")


def _compile(target: Path) -> Path:
    path, lib = target / "libggml_shim.so", target / "lib"
    words = ("g++", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-o", str(path), str(SHIM))
    links = ("-lggml", "-lggml-base", "-lggml-cpu", f"-Wl,-rpath,{lib}")
    _run(*words, f"-I{target / 'source' / 'include'}", f"-L{lib}", *links)
    return path


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"`{' '.join(words[:3])} ...` failed: {''.join(last)}")


if __name__ == "__main__":
    print(build())
