"""One of two processes: `python sharding_ranks.py RANK STORE OUT RECIPE` runs every case and writes what it saw as JSON.

All cases share the two processes, since to import what a language model needs takes longer than to train a tiny one.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

import bedstone as bs
from bedstone import quant
from bedstone.core.errors import CoreError
from bedstone.quant.row_shard import RowShard
from bedstone.quant.sharding import prepare_for_sharding
from bedstone.quant.tensor import QuantizedTensor
from bedstone.testing import tiny_llama

RANKS = 2
STEPS = 5
SCHEMES = {
    "nf4": quant.NF4(),
    "fp4": quant.FP4(block_size=32),
    "int8": quant.Int8(),
    "int8 block": quant.Int8("block", 32),
    "fp8": quant.FP8(),
    "fp8 tensor": quant.FP8("tensor"),
    "ternary": quant.Ternary(),
    "ternary row": quant.Ternary("row"),
    "nf4 double": quant.NF4(double_quant=True),
}

CASES: dict[str, object] = {}


def case(function):
    CASES[function.__name__] = function
    return function


# --- a tiny language model ----------------------------------------------------------------------------


def language_model(scheme, **config):
    """A tiny Llama, packed, with LoRA whose effect is not zero; the same on every rank."""
    model = tiny_llama(**config)
    bs.quantize(model, scheme)
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return model


def shard(model, **options):
    """As users do: each layer, then what is left."""
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, **options)
    fully_shard(model, **options)
    return model


def batches():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, 200, (4, 16), generator=generator).expand(STEPS, 4, 16)


def train(model, rank=0, ranks=1, pieces=1):
    """Losses and adapter after a few steps; the batch is dealt to the ranks, and on each to pieces that are accumulated."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for batch in batches():
        for piece in batch[rank::ranks].chunk(pieces):
            loss = model(input_ids=piece, labels=piece).loss / pieces
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
    total = torch.stack(losses).view(STEPS, pieces).sum(1)
    if ranks > 1:
        dist.all_reduce(total)
    trained = {name: whole(p.detach()) for name, p in model.named_parameters() if p.requires_grad}
    return total / ranks, trained


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def packed(model):
    """The packed weights of a model as this rank keeps them."""
    local = (p.to_local() if isinstance(p, DTensor) else p for p in model.parameters())
    return [p for p in local if isinstance(p, QuantizedTensor)]


def packed_bytes(model):
    return sum(p.packed_bytes for p in packed(model))


def compared(one, other):
    """Largest differences of losses and of adapters, and the losses."""
    (losses, adapter), (others, trained) = one, other
    names = [name.removeprefix("module.") for name in trained]
    return {
        "losses": losses.tolist(),
        "loss": (losses - others).abs().max().item(),
        "adapter": max((adapter[n] - t).abs().max().item() for n, t in zip(names, trained.values(), strict=True)),
        "moved": max(t.abs().max().item() for n, t in trained.items() if "lora_B" in n),
    }


def trained_twice(rank, scheme, *, pieces=1, prepare=False, options=None, **config):
    """The same training in one process and in two."""
    model = language_model(scheme, **config)
    facts = {"whole_bytes": packed_bytes(model)}
    options = options or {}
    if prepare:
        report = prepare_for_sharding(model, RANKS)
        facts |= {"expanded": list(report.expanded), "reasons": dict(report.reasons)}
        options["ignored_params"] = set(report.whole.values())
    shard(model, **options)
    facts |= {"kept_bytes": packed_bytes(model), "classes": sorted({type(p).__name__ for p in packed(model)})}
    sharded = train(model, rank, RANKS, pieces)
    return facts | compared(train(language_model(scheme, **config)), sharded)


# --- training -----------------------------------------------------------------------------------------


@case
def schemes(env):
    return {name: trained_twice(env.rank, SCHEMES[name]) for name in ("nf4", "int8", "fp8", "ternary")}


@case
def stays_gathered(env):
    return trained_twice(env.rank, "fp4", options={"reshard_after_forward": False}, num_hidden_layers=1)


@case
def accumulated(env):
    return trained_twice(env.rank, "nf4", pieces=2, num_hidden_layers=1)


@case
def uneven(env):
    """129 rows over two ranks, and 1 row, so that one rank has none."""
    return {
        rows: trained_twice(env.rank, SCHEMES[name], intermediate_size=rows, num_hidden_layers=1)
        for name, rows in (("int8", 129), ("fp8 tensor", 1))
    }


@case
def prepared(env):
    """Double quantization that no cut suits, and a weight of 129 columns that cannot be cut at all."""
    return trained_twice(env.rank, SCHEMES["nf4 double"], prepare=True, intermediate_size=129, num_hidden_layers=1)


@case
def mixed_precision(env):
    """bfloat16 products over the same packed bytes; compared with float32 to bfloat16's precision."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    return trained_twice(env.rank, "nf4", options={"mp_policy": policy}, num_hidden_layers=1)


@case
def gathered_bytes(env):
    """Packed bytes on this rank while each layer runs."""
    model = shard(language_model("nf4"))
    seen = []
    for layer in model.base_model.model.model.layers:
        layer.mlp.register_forward_hook(lambda *_: seen.append(packed_bytes(model)))
    model(input_ids=batches()[0]).logits.sum().backward()
    return {"kept": packed_bytes(model), "during": seen, "layers": len(seen)}


@case
def ddp(env):
    """Every rank has the whole model; the packed weights are not broadcast."""
    model = language_model("nf4")
    before = [p.clone() for p in packed(model)]
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
    result = compared(train(language_model("nf4")), train(DistributedDataParallel(model), env.rank, RANKS))
    return result | {"untouched": all(same_parts(a, b) for a, b in zip(before, packed(model), strict=True))}


@case
def ddp_broadcast(env):
    """Packed weights that DDP broadcasts dense: where all ranks have the same, and where rank 1 starts with others."""
    found = {}
    for name, scheme in SCHEMES.items():
        first = small(scheme)[0].weight
        same, other = (DistributedDataParallel(small(scheme, seed=seed)).module[0].weight for seed in (0, env.rank))
        moved = (other.dequantize() - first.dequantize()).abs().max() / first.dequantize().abs().max()
        found[name] = {"same": same_parts(same, first), "moved": moved.item(), "class": type(other).__name__}
    return found


# --- states -------------------------------------------------------------------------------------------


def small(scheme, *, rows=33, seed=0, device="cpu"):
    """A packed layer of 33 rows, which two ranks cannot share evenly, and a dense one."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = nn.Sequential(nn.Linear(64, rows), nn.Linear(rows, 3))
    bs.quantize(model, scheme, skip=["1"])
    return model


def inputs():
    return torch.randn(2, 64, generator=torch.Generator().manual_seed(3))


def same_parts(one, other):
    pairs = [(one.parts[name], other.parts[name]) for name in other.parts]
    return one.scheme == other.scheme and all(a.shape == b.shape and torch.equal(bits(a), bits(b)) for a, b in pairs)


def bits(part):
    return part.reshape(-1).view(torch.uint8)


def cuttable(scheme, **options):
    model = small(scheme, **options)
    prepare_for_sharding(model, RANKS)
    return model


@case
def full_state(env):
    """The gathered weight is the packed one, bit for bit; with a frozen base left out only the rest is gathered."""
    found = {}
    for name, scheme in SCHEMES.items():
        model, first = fully_shard(cuttable(scheme)), cuttable(scheme)
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
        gathered = state["0.weight"]
        found[name] = {
            "class": type(gathered).__name__,
            "equal": same_parts(gathered, first[0].weight),
            "trainable": sorted(get_model_state_dict(model, options=StateDictOptions(ignore_frozen_params=True))),
            "output": torch.equal(model(inputs()), first(inputs())),
        }
    return found


@case
def checkpoints(env):
    """Saved by two ranks and by one process, loaded by two ranks, by one process, and into a model without memory."""
    found = {}
    for name, scheme in SCHEMES.items():
        first = cuttable(scheme)
        by_two, by_one = (str(env.out / f"{name} by {who}") for who in ("two", "one"))
        dcp.save(get_model_state_dict(fully_shard(cuttable(scheme))), checkpoint_id=by_two)
        if env.rank == 0:
            dcp.save(first.state_dict(), checkpoint_id=by_one, no_dist=True)
        dist.barrier()
        weights = {
            "two to two": loaded(fully_shard(cuttable(scheme, seed=9)), by_two),
            "one to two": loaded(fully_shard(cuttable(scheme, seed=9)), by_one),
            "two to meta": loaded(fully_shard(cuttable(scheme, device="meta")), by_two),
        }
        found[name] = {way: same_parts(weight, first[0].weight) for way, weight in weights.items()}
        try:
            weight = loaded(cuttable(scheme, seed=9), by_two, no_dist=True)
            found[name]["two to one"] = same_parts(weight, first[0].weight)
        except dcp.api.CheckpointException as error:
            found[name]["two to one"] = str(error.failures[0][0])
    return found


def loaded(model, path, **options):
    """The packed weight of a model that was loaded from a checkpoint, whole."""
    if any(p.is_meta for p in model.parameters()):
        model.to_empty(device="cpu")
    state = model.state_dict()
    dcp.load(state, checkpoint_id=path, **options)
    if options:
        model.load_state_dict(state)
    else:
        set_model_state_dict(model, state)
    return whole(model[0].weight)


@case
def dense_state(env):
    """A full dense state is packed anew on each rank, where the ranks share no scale."""
    found = {}
    for name in ("int8", "nf4", "fp8 tensor"):
        first, model = small(SCHEMES[name]), fully_shard(small(SCHEMES[name], seed=9))
        dense = {k: v.dequantize() if isinstance(v, QuantizedTensor) else v for k, v in first.state_dict().items()}
        before = model[0].weight.to_local().clone()
        try:
            set_model_state_dict(model, dense, options=StateDictOptions(full_state_dict=True))
            found[name] = (whole(model[0].weight).dequantize() - first[0].weight.dequantize()).abs().max().item()
        except RuntimeError as error:
            found[name] = {"error": str(error), "untouched": same_parts(model[0].weight.to_local(), before)}
    return found


# --- other ways ---------------------------------------------------------------------------------------


@case
def other_ways(env):
    """Offload to the CPU, a change of dtype after the cut, compiled layers, one rank of one."""
    first = small("nf4")
    expected = first(inputs())
    offloaded = fully_shard(small("nf4"), offload_policy=CPUOffloadPolicy(pin_memory=False))
    moved = fully_shard(small("nf4")).bfloat16()
    compiled = small("nf4", rows=64)
    wanted = compiled(inputs())
    compiled[0].compile(backend="aot_eager")
    compiled = fully_shard(nn.Sequential(fully_shard(compiled[0]), compiled[1]))
    alone = dist.init_device_mesh("cpu", (RANKS, 1), mesh_dim_names=("replicate", "shard"))["shard"]
    single = fully_shard(small("nf4"), mesh=alone)
    single(inputs()).sum().backward()
    return {
        "offloaded": torch.equal(offloaded(inputs()), expected),
        "moved": [str(moved(inputs().bfloat16()).dtype), type(moved[0].weight).__name__],
        "compiled": torch.equal(compiled(inputs()), wanted),
        "alone": torch.equal(single(inputs()), expected),
    }


@case
def replicated_groups(env):
    """Each rank is a group of one shard and the groups average: the hybrid form, on a mesh of two dimensions."""
    mesh = dist.init_device_mesh("cpu", (RANKS, 1), mesh_dim_names=("replicate", "shard"))
    return trained_twice(env.rank, "nf4", options={"mesh": mesh}, num_hidden_layers=1)


@case
def a_shard(env):
    """What a rank keeps, and what FSDP2 keeps beside it."""
    model = fully_shard(small("int8"))
    local = model[0].weight.to_local()
    flat = local.view(-1) if env.rank == 0 else None
    facts = {"class": type(local).__name__, "shape": list(local.shape), "is_shard": isinstance(local, RowShard)}
    if flat is not None:
        facts["flat"] = [type(flat).__name__, torch.equal(flat + 0, local.dequantize().view(-1))]
    return facts


@case
def refusals(env):
    """What cannot be cut is an error that says so, on every rank alike."""

    def attempt(layer, scheme, **options):
        bs.quantize(layer, scheme)
        weight = layer.weight
        try:
            fully_shard(layer, **options)
        except CoreError as error:
            return {"error": str(error), "untouched": layer.weight is weight}
        return {"error": None}

    return {
        "block": attempt(nn.Linear(96, 5), "nf4"),
        "nested": attempt(nn.Linear(64, 8), SCHEMES["nf4 double"]),
        "columns": attempt(nn.Linear(64, 8, bias=False), "int8", shard_placement_fn=lambda _: Shard(1)),
    }


@case
def nested_cut(env):
    """Double quantization where a group of 256 scales ends at the cut: 64 rows of 512 columns."""
    torch.manual_seed(0)
    layer = nn.Linear(512, 64)
    bs.quantize(layer, SCHEMES["nf4 double"])
    report = prepare_for_sharding(layer, RANKS)
    x = torch.randn(3, 512)
    expected = layer(x)
    fully_shard(layer)
    bits = layer.weight.to_local().bits_per_param
    return {"expanded": list(report.expanded), "equal": torch.equal(layer(x), expected), "bits": bits}


@case
def recipe(env):
    """What the script of the documentation left behind fits a model in one process."""
    model = PeftModel.from_pretrained(packed_base(), env.out / "adapter")
    return max(p.abs().max().item() for name, p in model.named_parameters() if "lora_B" in name)


def packed_base():
    model = tiny_llama()
    bs.quantize(model, "nf4")
    return model


def run_recipe(source, rank, store, out):
    """Run the script as torchrun would, but for the way in which the processes find each other."""
    start = 'dist.init_process_group("gloo")'
    assert start in source
    found = f'dist.init_process_group("gloo", init_method="file://{store}-recipe", rank={rank}, world_size={RANKS})'
    with contextlib.chdir(out):
        exec(compile(source.replace(start, found), "recipe", "exec"), {"__name__": "__main__"})


def main(rank, store, out, source):
    torch.set_num_threads(1)
    run_recipe(source, rank, store, out)
    results = {}
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS, timeout=timedelta(seconds=100)
    )
    try:
        for name, run in CASES.items():
            started = time.process_time()
            results[name] = run(SimpleNamespace(rank=rank, out=out))
            results[f"{name} seconds"] = time.process_time() - started
            dist.barrier()
    finally:  # the other rank waits for one that failed, and gives up
        (out / f"{rank}.json").write_text(json.dumps(results), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]).read_text(encoding="utf-8"))
