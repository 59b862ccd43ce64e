"""Two texts in the public domain, from Debian: what `quant_error.py` reads beside Python's language reference.

    python benchmarks/quant_texts.py FOLDER        # needs apt-get and dpkg-deb

The Devil's Dictionary (package dict-devil) with a line a paragraph, and the Constitution of the United States (miscfiles), which a
model may know by heart. Nothing is installed: the packages are fetched and unpacked beside the texts.
"""

from __future__ import annotations

import argparse
import gzip
import re
import subprocess
from pathlib import Path

DICTIONARY, CONSTITUTION = "devils_dictionary.txt", "us_constitution.txt"


def fetch(package: str, folder: Path) -> Path:
    """Return the folder that a Debian package was unpacked into."""
    target = folder / package
    subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
    (archive,) = folder.glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, target], check=True)
    return target


def unwrapped(text: str) -> str:
    """Return a text with the lines of each paragraph joined; a blank line separates paragraphs."""
    paragraphs = (re.sub(r"[ \t]*\n[ \t]*", " ", paragraph) for paragraph in re.split(r"\n\s*\n", text))
    return re.sub(r" {2,}", " ", "\n\n".join(paragraphs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    # .dict.dz is gzip with an index.
    dictionary = gzip.decompress((fetch("dict-devil", folder) / "usr/share/dictd/devil.dict.dz").read_bytes()).decode()
    (folder / DICTIONARY).write_text(unwrapped(dictionary[dictionary.index("ABASEMENT") :]), encoding="utf-8")
    constitution = (fetch("miscfiles", folder) / "usr/share/state/us-constitution.gz").read_bytes()
    (folder / CONSTITUTION).write_bytes(gzip.decompress(constitution))
    print(f"wrote {folder / DICTIONARY} and {folder / CONSTITUTION}")


if __name__ == "__main__":
    main()
