"""What the installed bitsandbytes writes opens here and what is written here opens there, with identical bits."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bedstone as bs
from bedstone import quant
from bedstone.quant.formats import WeightFormatError, assign_state, from_bitsandbytes, to_bitsandbytes
from bedstone.repro.tensor_file import write_tensors
from bedstone.testing import tiny_llama

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes, the oracle of these formats, is not installed")
from bitsandbytes import functional as bnb_functional  # noqa: E402 - only where it is installed

STATE = "w.quant_state.bitsandbytes__nf4"


def _linear4bit(quant_type="nf4", nested=False, dtype=torch.float32, storage=torch.uint8, shape=(24, 96)):
    layer = bnb.nn.Linear4bit(
        shape[1], shape[0], quant_type=quant_type, compress_statistics=nested, quant_storage=storage
    )
    layer.weight.data = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return layer.to("cpu")  # this is where bitsandbytes quantizes


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "double"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_linear4bit_opens_with_identical_values(bitsandbytes_dense, quant_type, nested, dtype):
    """The state dict of their module becomes a packed weight that dequantizes to what theirs dequantizes to."""
    layer = _linear4bit(quant_type, nested, dtype)
    state = from_bitsandbytes(layer.state_dict())
    assert list(state) == ["weight", "bias"]
    weight = state["weight"]
    assert (weight.scheme.name, weight.scheme.double_quant) == (quant_type, nested)
    assert (weight.dtype, weight.shape) == (dtype, (24, 96))
    theirs = bitsandbytes_dense(layer.weight.data, layer.weight.quant_state)
    assert theirs.dtype == dtype
    assert torch.equal(weight.dequantize(), theirs)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "double"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_ours_opens_in_bitsandbytes_with_identical_values(bitsandbytes_dense, quant_type, nested, dtype):
    """Through `QuantState.from_dict` and as the parameter of a `Linear4bit`, as transformers loads it."""
    packed = quant.get_scheme(quant_type).__class__(double_quant=nested).quantize(torch.randn(24, 128).to(dtype))
    tensors = to_bitsandbytes({"weight": packed})
    stats = {key.removeprefix("weight."): value for key, value in tensors.items() if key != "weight"}
    parameter = bnb.nn.Params4bit.from_prequantized(tensors["weight"], stats, device="cpu")
    theirs = bitsandbytes_dense(parameter.data, parameter.quant_state)
    assert torch.equal(theirs, packed.dequantize())
    layer = bnb.nn.Linear4bit(128, 24, bias=False, quant_type=quant_type)
    layer.weight = parameter
    x = torch.randn(3, 128).to(dtype).requires_grad_()  # without a gradient it multiplies in bfloat16 where the CPU can
    expected = x.float() @ packed.dequantize().float().T
    torch.testing.assert_close(layer(x).float(), expected, atol=0.2 if dtype != torch.float32 else 1e-4, rtol=1e-2)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "double"])
def test_the_keys_are_those_that_bitsandbytes_writes(quant_type, nested):
    """Same names, dtypes, shapes and bytes; of the JSON the same content."""
    layer = _linear4bit(quant_type, nested)
    theirs = {name: tensor for name, tensor in layer.state_dict().items() if name != "bias"}
    ours = to_bitsandbytes(from_bitsandbytes(theirs))
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        if "quant_state" in name:
            assert json.loads(bytes(ours[name].tolist())) == json.loads(bytes(tensor.tolist()))
        else:
            assert torch.equal(ours[name].view(torch.uint8), tensor.detach().view(torch.uint8)), name
            assert (ours[name].shape, ours[name].dtype) == (tensor.shape, tensor.dtype)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 150),
    block=st.sampled_from([32, 64, 128, 4096]),
    nested=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_shape_opens_in_both(bitsandbytes_dense, rows, columns, block, nested, seed):
    """Partial blocks and odd sizes: their quantizer's output opens here, and goes back unchanged."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    packed, state = bnb_functional.quantize_4bit(weight, blocksize=block, quant_type="nf4", compress_statistics=nested)
    tensors = {"w": packed} | {f"w.{key}": value for key, value in state.as_dict(packed=True).items()}
    ours = from_bitsandbytes(tensors)["w"]
    assert torch.equal(ours.dequantize(), bitsandbytes_dense(packed, state))
    assert torch.equal(to_bitsandbytes({"w": ours})["w"], packed)


@pytest.mark.parametrize("storage", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_other_storage_types_are_the_same_bytes(bitsandbytes_dense, storage):
    """`quant_storage` only changes as what the bytes are seen."""
    layer = _linear4bit(storage=storage)
    assert layer.weight.dtype == storage
    theirs = bitsandbytes_dense(layer.weight.data, layer.weight.quant_state)
    assert torch.equal(from_bitsandbytes(layer.state_dict())["weight"].dequantize(), theirs)


def test_a_linear8bit_opens_with_identical_codes_and_scales():
    """Codes and scales are the same bits; dequantized they agree to the last bit but one, since the order of the product differs."""
    layer = bnb.nn.Linear8bitLt(96, 24, has_fp16_weights=False)
    layer.weight.data = torch.randn(24, 96)
    layer = layer.to("cpu")
    state = layer.state_dict()
    ours = from_bitsandbytes(state)
    assert list(ours) == ["weight", "bias"]
    weight = ours["weight"]
    assert weight.dtype == torch.float16
    assert torch.equal(weight.parts["codes"], state["weight"])
    assert torch.equal(weight.parts["absmax"].view(-1), state["SCB"])
    theirs = bnb_functional.int8_vectorwise_dequant(state["weight"], state["SCB"])
    torch.testing.assert_close(weight.dequantize(torch.float32), theirs, rtol=2.5e-7, atol=0)
    back = to_bitsandbytes(ours)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)


def test_our_int8_opens_in_a_linear8bit():
    """`Linear8bitLt` loads it and multiplies by the same weight, up to its own rounding of the input."""
    packed = bs.quantize(torch.randn(24, 96).half(), "int8")
    layer = bnb.nn.Linear8bitLt(96, 24, bias=False, has_fp16_weights=False).to("cpu")
    layer.load_state_dict(to_bitsandbytes({"weight": packed}))
    assert torch.equal(layer.weight.data, packed.parts["codes"])
    x = torch.randn(4, 96)
    dense = packed.dequantize(torch.float32)
    rounding = x.abs().amax(-1, keepdim=True) / 254 * dense.abs().sum(-1) + 0.05
    assert bool(((layer(x.half()).float() - x @ dense.T).abs() <= rounding).all())


def test_other_tensors_pass_and_keep_their_order():
    """Norms and biases are what they were, where they were."""
    state = {"norm": torch.ones(3), "w": bs.quantize(torch.ones(8, 64), "nf4"), "bias": torch.ones(2)}
    assert list(from_bitsandbytes(to_bitsandbytes(state))) == ["norm", "w", "bias"]


# --- what is refused ---------------------------------------------------------------------------------


def _checkpoint(nested=False, **described):
    tensors = to_bitsandbytes({"w": quant.NF4(double_quant=nested).quantize(torch.ones(8, 64))})
    if described:
        state = json.loads(bytes(tensors[STATE].tolist())) | described
        text = json.dumps({key: value for key, value in state.items() if value != "gone"})
        tensors[STATE] = torch.tensor(list(text.encode()), dtype=torch.uint8)
    return tensors


@pytest.mark.parametrize(
    ("described", "nested", "said"),
    [
        ({"blocksize": 48}, False, "`block_size` (=48) must be one of 32, 64"),
        ({"blocksize": 16}, False, "`block_size` (=16) must be one of 32, 64"),
        ({"blocksize": "gone"}, False, "The quant_state of 'w' has no 'blocksize'."),
        ({"dtype": "float8"}, False, "has the dtype 'float8'; known are float32, float16, bfloat16."),
        ({"shape": None}, False, "has the shape None, which is none."),
        ({"shape": [9, 64]}, False, "The packed of 'w' is torch.uint8 (256,); a nf4 weight of shape (9, 64) has"),
        ({"quant_type": "fp4"}, False, "has the key of quant_type 'nf4' and says 'fp4'"),
        ({"nested_blocksize": 64}, True, "The double quantization of 'w' has blocks of 64 in float32;"),
        ({"nested_dtype": "float16"}, True, "has blocks of 256 in float16;"),
        ({"nested_offset": "gone"}, True, "The quant_state of 'w' has no 'nested_offset'."),
    ],
)
def test_a_quant_state_that_is_not_ours_is_refused(described, nested, said):
    """The weight and the value that cannot be are told."""
    with pytest.raises(WeightFormatError) as caught:
        from_bitsandbytes(_checkpoint(nested, **described))
    assert said in str(caught.value)
    assert (caught.value.weight, caught.value.format) == ("w", "bitsandbytes")


@pytest.mark.parametrize("table", ["quant_map", "nested_quant_map"])
def test_another_table_is_refused(table):
    """Codes of another table mean other values; opening them would be a wrong model."""
    tensors = _checkpoint(nested=True)
    tensors[f"w.{table}"][3] += 0.001
    with pytest.raises(WeightFormatError, match=f"The {table} of 'w' is not th.*so its codes mean other values"):
        from_bitsandbytes(tensors)


@pytest.mark.parametrize("part", ["absmax", "quant_map", "nested_absmax", "nested_quant_map"])
def test_a_missing_part_is_named(part):
    """Every part that a weight needs."""
    tensors = _checkpoint(nested=True)
    del tensors[f"w.{part}"]
    with pytest.raises(WeightFormatError, match=rf"'w\.{part}' is missing, which the packed weight 'w' needs"):
        from_bitsandbytes(tensors)


def test_a_missing_weight_or_quant_state_is_named():
    """Neither half of a weight is taken for something else."""
    tensors = _checkpoint()
    with pytest.raises(WeightFormatError, match="'w' is missing"):
        from_bitsandbytes({key: value for key, value in tensors.items() if key != "w"})
    with pytest.raises(WeightFormatError, match=r"'w\.quant_state\.bitsandbytes__\.\.\.' is missing"):
        from_bitsandbytes({key: value for key, value in tensors.items() if key != STATE})


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b'{"quant_type"'])
def test_a_quant_state_that_is_no_json_is_refused(content):
    """Damaged bytes are told as such."""
    tensors = _checkpoint() | {STATE: torch.tensor(list(content), dtype=torch.uint8)}
    with pytest.raises(WeightFormatError, match="The quant_state of 'w' is no JSON object"):
        from_bitsandbytes(tensors)


def test_scales_of_another_dtype_or_size_are_refused():
    """A cast checkpoint has other scales than those that its codes were made for."""
    tensors = _checkpoint()
    with pytest.raises(WeightFormatError, match=r"The absmax of 'w' is torch\.bfloat16"):
        from_bitsandbytes(tensors | {"w.absmax": tensors["w.absmax"].bfloat16()})
    with pytest.raises(WeightFormatError, match=r"The absmax of 'w' is torch.float32 \(7,\)"):
        from_bitsandbytes(tensors | {"w.absmax": torch.ones(7)})


def test_an_int8_layout_of_earlier_gpus_is_refused():
    """Their bytes are in another order."""
    tensors = to_bitsandbytes({"weight": bs.quantize(torch.ones(8, 64), "int8")})
    with pytest.raises(WeightFormatError, match="'weight' has the weight format 2, a layout of earlier GPUs"):
        from_bitsandbytes(tensors | {"weight_format": torch.tensor(2, dtype=torch.uint8)})


@pytest.mark.parametrize(
    ("name", "scheme", "dtype", "said"),
    [
        ("w", quant.Ternary(), torch.float32, "bitsandbytes has no form for 'w', which is packed as Ternary("),
        ("w", quant.FP8(), torch.float32, "bitsandbytes has no form for 'w', which is packed as FP8("),
        ("weight", quant.Int8("block"), torch.float32, "bitsandbytes has no form for 'weight'"),
        ("w", quant.Int8(), torch.float32, "bitsandbytes keeps int8 in the `weight` of a linear layer, and 'w'"),
        ("w", quant.NF4(), torch.float64, "bitsandbytes has no float64 weights, and 'w' is one."),
    ],
)
def test_what_bitsandbytes_has_no_form_for_is_refused(name, scheme, dtype, said):
    """The weight and its scheme are told; nothing is requantized in silence."""
    with pytest.raises(WeightFormatError) as caught:
        to_bitsandbytes({name: scheme.quantize(torch.ones(8, 64, dtype=dtype))})
    assert str(caught.value).startswith(said)


# --- whole models through transformers ---------------------------------------------------------------

CONFIGS = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"},
    "nf4 twice": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "float32",
    },
    "int8": {"load_in_8bit": True, "llm_int8_skip_modules": ["lm_head"]},
}
SCHEMES = {"nf4": quant.NF4(), "nf4 twice": quant.NF4(double_quant=True), "int8": quant.Int8()}
# Of int8 they multiply halves with inputs that are rounded to int8.
TOLERANCES = {"nf4": 1e-5, "nf4 twice": 1e-5, "int8": 0.02}
IDS = torch.arange(40).view(1, -1)


def _logits(model):
    """With a gradient wanted: without one, bitsandbytes multiplies in bfloat16 where the CPU can."""
    inputs = model.get_input_embeddings()(IDS).detach().requires_grad_()
    return model.eval()(inputs_embeds=inputs).logits.detach()


@pytest.mark.parametrize("kind", CONFIGS)
def test_transformers_loads_our_export_as_bitsandbytes(tmp_path, kind):
    """A folder with our tensors and their configuration opens with `from_pretrained` into modules of bitsandbytes."""
    from transformers import AutoModelForCausalLM

    model = tiny_llama()
    bs.quantize(model, SCHEMES[kind])
    model.config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"dtype": "float32", "quantization_config": {"quant_method": "bitsandbytes"} | CONFIGS[kind]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    write_tensors(tmp_path / "model.safetensors", to_bitsandbytes(state), {"format": "pt"})
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, device_map="cpu")
    expected = bnb.nn.Linear8bitLt if kind == "int8" else bnb.nn.Linear4bit
    assert isinstance(theirs.model.layers[0].mlp.up_proj, expected)
    torch.testing.assert_close(_logits(theirs), _logits(model), atol=TOLERANCES[kind], rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_of_bitsandbytes_opens_here(tmp_path, kind):
    """What transformers quantized with bitsandbytes and saved becomes a packed model of the same logits."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tiny_llama().save_pretrained(tmp_path / "dense")
    config = BitsAndBytesConfig(**CONFIGS[kind])
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", device_map="cpu", quantization_config=config)
    theirs.save_pretrained(tmp_path / "packed")
    state = from_bitsandbytes(load_file(tmp_path / "packed" / "model.safetensors"))
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model = tiny_llama(seed=1)
    assign_state(model, state)
    assert model.model.layers[0].mlp.up_proj.weight.scheme == SCHEMES[kind]
    torch.testing.assert_close(_logits(model), _logits(theirs), atol=TOLERANCES[kind], rtol=0)
