"""Our writer and the safetensors library agree on every dtype, shape and layout, bit for bit."""

import errno

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch._subclasses import FakeTensorMode

from bedstone.core.errors import UnsupportedError
from bedstone.repro.files import sha256_file
from bedstone.repro.tensor_file import _CODES, check_tensors, read_tensors, write_tensors

DTYPES = sorted(_CODES, key=str)
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def bits(tensor):
    return tensor.contiguous().reshape(-1, 1).view(torch.uint8)


def identical(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(bits(left), bits(right))


def random_bits(dtype, shape, seed):
    """A tensor with every bit random, NaNs and infinities included; a boolean has only two legal bytes."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda n: n != "__metadata__"), st.tuples(st.sampled_from(DTYPES), shapes)
    )
)
@settings(max_examples=60, deadline=None)
def test_every_dtype_and_shape_comes_back(tmp_path_factory, specs):
    tensors = {
        name: random_bits(dtype, shape or ((1,) if dtype == torch.float4_e2m1fn_x2 else ()), seed)
        for seed, (name, (dtype, shape)) in enumerate(specs.items())
    }
    path = tmp_path_factory.mktemp("tensors") / "a.safetensors"
    record = write_tensors(path, tensors)
    assert (record.bytes, record.sha256) == (path.stat().st_size, sha256_file(path))
    back = read_tensors(path)
    assert back.keys() == tensors.keys()
    assert all(identical(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_library_reads_our_file_and_we_read_the_librarys(tmp_path, dtype):
    tensors = {"b": random_bits(dtype, (2, 3), 1), "a": torch.arange(3), "c": random_bits(dtype, (0, 2), 2)}
    write_tensors(tmp_path / "ours", tensors)
    safetensors.torch.save_file(tensors, tmp_path / "theirs")
    assert (tmp_path / "ours").stat().st_size == (tmp_path / "theirs").stat().st_size
    for back in (safetensors.torch.load_file(tmp_path / "ours"), read_tensors(tmp_path / "theirs")):
        assert all(identical(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12).reshape(3, 4).T,
        torch.arange(12)[::3],
        torch.ones(1).expand(5),
        torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
        torch.nn.Parameter(torch.ones(2)),
        torch.view_as_complex(torch.arange(4.0).reshape(2, 2)).conj(),
        torch.view_as_complex(torch.arange(4.0).reshape(2, 2)).conj().imag,
    ],
    ids=["transposed", "strided", "expanded", "channels last", "parameter", "conjugate", "negative view"],
)
def test_every_layout_comes_back_as_its_values(tmp_path, tensor):
    write_tensors(tmp_path / "a", {"x": tensor})
    back = read_tensors(tmp_path / "a")["x"]
    assert torch.equal(back, tensor.detach().resolve_conj().resolve_neg())
    assert not back.requires_grad


def test_tensors_that_share_storage_are_each_written_and_then_independent(tmp_path):
    weight = torch.ones(3)
    write_tensors(tmp_path / "a", {"embedding": weight, "head": weight, "part": weight[1:]})
    back = read_tensors(tmp_path / "a")
    back["embedding"].zero_()
    assert back["head"].tolist() == [1, 1, 1]
    assert back["part"].tolist() == [1, 1]


def test_what_was_read_outlives_its_file(tmp_path):
    write_tensors(tmp_path / "a", {"x": torch.ones(100_000)})
    back = read_tensors(tmp_path / "a")["x"]
    (tmp_path / "a").write_bytes(b"")
    assert back.sum() == 100_000


def test_numpy_is_not_needed(run_python, tmp_path):
    script = """
import sys; sys.modules['numpy'] = None
import torch, pathlib
from bedstone.repro.tensor_file import read_tensors, write_tensors
path = pathlib.Path(sys.argv[1])
write_tensors(path, {"x": torch.ones(3, dtype=torch.bfloat16), "empty": torch.empty(0)})
print(read_tensors(path)["x"].tolist())
"""
    assert run_python(script, tmp_path / "a").strip() == "[1.0, 1.0, 1.0]"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(2).to_sparse(), "has the layout torch.sparse_coo; the safetensors format is dense"),
        (torch.empty(2, device="meta"), "lies on the device `meta`, so it has no data to write"),
        (torch.ones(2, dtype=torch.complex128), "is of dtype torch.complex128, which the safetensors format lacks"),
    ],
)
def test_what_the_format_lacks_is_named(tensor, message):
    with pytest.raises(UnsupportedError) as caught:
        check_tensors({"fine": torch.ones(1), "odd.one": tensor}, file="model")
    assert str(caught.value) == f"The tensor 'odd.one' of 'model' {message}."


def test_an_existing_file_is_not_overwritten(tmp_path):
    write_tensors(tmp_path / "a", {"x": torch.ones(1)})
    with pytest.raises(FileExistsError) as caught:
        write_tensors(tmp_path / "a", {"x": torch.zeros(1)})
    assert caught.value.errno == errno.EEXIST


class Wrapper(torch.Tensor):
    """A subclass as quantization libraries make them: a shape outside, the numbers in tensors inside."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return cls(function(*(arg.inner if isinstance(arg, cls) else arg for arg in args), **(kwargs or {})))

    def __repr__(self):
        return "Wrapper()"


def _fake():
    with FakeTensorMode():
        return torch.ones(2)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (_fake, "FakeTensor"),
        (lambda: Wrapper(torch.ones(2)), "Wrapper"),
        (lambda: torch._efficientzerotensor((2,)), "Tensor"),
        (torch.nn.UninitializedParameter, "UninitializedParameter"),
    ],
)
def test_a_tensor_without_memory_is_refused_instead_of_read(make, kind):
    """The address of its elements is 0; reading from there ends the process."""
    with pytest.raises(UnsupportedError) as caught:
        check_tensors({"w": make()}, file="model")
    assert str(caught.value) == (
        f"The tensor 'w' of 'model' is a {kind} without memory of its own, so it has no data to write."
    )


def test_metadata_stand_in_the_header(tmp_path):
    """The format's own reader gives them back, and the tensors are the same as without."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"w": torch.ones(3)}, {"made by": "grün"})
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"made by": "grün"}
        assert torch.equal(file.get_tensor("w"), torch.ones(3))
