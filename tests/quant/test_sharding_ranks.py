"""Two processes train and save as one does, with packed weights of which each keeps half; what cannot be cut says so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "sharding.md"
ALL = ["nf4", "fp4", "int8", "int8 block", "fp8", "fp8 tensor", "ternary", "ternary row", "nf4 double"]
ONE_SCALE = {"fp8 tensor": "absmax", "ternary": "scale"}


def recipe_of(page: Path) -> str:
    """The first program of the page that the page does not run by itself."""
    found = re.search(
        r"<!-- not run: [^\n]*two processes[^\n]*\n```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL
    )
    assert found
    return found[1]


def run_ranks(out: Path) -> None:
    """Start both processes and wait for them; what they say is the reason of a failure."""
    (out / "recipe.py").write_text(recipe_of(PAGE), encoding="utf-8")
    script, quiet = str(Path(__file__).with_name("sharding_ranks.py")), {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet["BEDSTONE_KERNELS"] = "exact"  # a rounded product depends on how many rows are computed at a time
    arguments = [str(out / "store"), str(out), str(out / "recipe.py")]
    processes = []
    try:
        for rank in ("0", "1"):
            with (out / f"{rank}.log").open("w") as log:
                command = [sys.executable, script, rank, *arguments]
                processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=quiet))
        ends = [process.wait(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert ends == [0, 0], "\n".join((out / f"{rank}.log").read_text(encoding="utf-8") for rank in (0, 1))


@pytest.fixture(scope="session")
def ranks(tmp_path_factory, request):
    """What each of two processes saw in every case of `sharding_ranks.py`; test workers share one run."""
    alone = not hasattr(request.config, "workerinput")
    base = tmp_path_factory.getbasetemp() if alone else tmp_path_factory.getbasetemp().parent
    out = base / "sharding"
    with FileLock(base / "sharding.lock"):
        if not (out / "done").exists():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            run_ranks(out)
            (out / "done").touch()
    return [json.loads((out / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


@pytest.fixture
def first(ranks):
    """What rank 0 saw."""
    return ranks[0]


@pytest.mark.parametrize("scheme", ["nf4", "int8", "fp8", "ternary"])
def test_lora_over_a_sharded_base_trains_as_in_one_process(first, scheme):
    """Losses and adapters of five steps, after the adapter has moved far beyond the difference that is allowed."""
    run = first["schemes"][scheme]
    assert run["loss"] < 1e-5
    assert run["adapter"] < 1e-5
    assert run["moved"] > 1e-2
    assert run["losses"][-1] < run["losses"][0] - 0.05


@pytest.mark.parametrize("scheme", ["nf4", "int8", "fp8", "ternary"])
def test_each_rank_keeps_half_of_the_packed_bytes(ranks, scheme):
    """And one scale for a whole tensor on each; nothing is kept dense."""
    for seen in ranks:
        run = seen["schemes"][scheme]
        assert run["classes"] == ["RowShard"]
        assert run["whole_bytes"] / 2 <= run["kept_bytes"] <= run["whole_bytes"] / 2 + 4 * 14


@pytest.mark.parametrize("way", ["stays_gathered", "accumulated", "prepared", "replicated_groups", "ddp"])
def test_other_ways_to_train_end_where_one_process_does(first, way):
    """Not resharded after the forward pass, with accumulated gradients, with some weights whole, in groups, under DDP."""
    assert first[way]["loss"] < 1e-5
    assert first[way]["adapter"] < 1e-5


@pytest.mark.parametrize("rows", ["129", "1"])
def test_uneven_rows_are_padded_for_the_gather_alone(ranks, rows):
    """129 rows over two ranks, and one row, which leaves a rank without any; both keep less than the padded half."""
    assert ranks[0]["uneven"][rows]["adapter"] < 1e-5
    even, short = (seen["uneven"][rows]["kept_bytes"] for seen in ranks)
    assert short < even


def test_mixed_precision_multiplies_in_bfloat16(first):
    """The packed bytes are the same; the products differ from those in float32 by what bfloat16 rounds."""
    run = first["mixed_precision"]
    assert 0 < run["loss"] < 1e-2
    assert run["classes"] == ["RowShard"]


def test_one_layer_is_whole_at_a_time(first):
    """While a layer runs, a rank holds its half of all and the other half of this layer."""
    seen = first["gathered_bytes"]
    assert seen["layers"] == 2
    assert seen["during"] == [seen["kept"] + seen["kept"] // 2] * 2


def test_preparing_expands_nested_scales_and_names_what_stays_whole(first):
    """129 columns cannot be cut between blocks of 64; the others lose their double quantization."""
    run = first["prepared"]
    (name,) = run["reasons"]
    assert name.endswith("mlp.down_proj.base_layer.weight")
    assert run["reasons"][name] == "nf4 cannot be cut at rows 0 to 32: a block of 64 ends every 64 rows of 129."
    assert len(run["expanded"]) == 6
    assert run["classes"] == ["QuantizedTensor", "RowShard"]


def test_double_quantization_is_cut_between_groups_of_scales(first):
    """64 rows of 512 columns are two groups of 256 scales: each rank keeps one, still nested."""
    assert first["nested_cut"] == {"expanded": [], "equal": True, "bits": pytest.approx(4.129, abs=1e-3)}


@pytest.mark.parametrize("scheme", ALL)
def test_a_full_state_is_gathered_packed(ranks, scheme):
    """Bit for bit the weight that was cut, of 33 rows; and the output of the sharded layer is that of the whole one."""
    trainable = ["0.bias", "1.bias", "1.weight"]
    for seen in ranks:
        state = seen["full_state"][scheme]
        assert state == {"class": "QuantizedTensor", "equal": True, "trainable": trainable, "output": True}


@pytest.mark.parametrize("scheme", ALL)
def test_a_checkpoint_holds_packed_rows(ranks, scheme):
    """Saved by two ranks or by one process, loaded by two or by one or into memory that was not there: the same bits."""
    for seen in ranks:
        ways = dict(seen["checkpoints"][scheme])
        to_one = ways.pop("two to one")
        assert ways == {"two to two": True, "one to two": True, "two to meta": True}
        if scheme in ONE_SCALE:
            assert to_one == (
                f"copy_ would write to rows of a packed weight that share `{ONE_SCALE[scheme]}` with its other rows. "
                "Write to the whole weight instead."
            )
        else:
            assert to_one is True


def test_a_dense_state_is_packed_anew_where_ranks_share_no_scale(first):
    """One scale for the tensor would become one a rank; that is refused, and the shard stays as it was."""
    state = first["dense_state"]
    assert state["nf4"] == 0
    assert state["int8"] < 1e-7
    assert "would write to rows of a sharded fp8 weight, all of which share `absmax`." in state["fp8 tensor"]["error"]
    assert state["fp8 tensor"]["untouched"]


def test_ddp_leaves_ignored_weights_alone(ranks):
    """Neither broadcast nor changed."""
    assert all(seen["ddp"]["untouched"] for seen in ranks)


@pytest.mark.parametrize("scheme", ALL)
def test_ddp_leaves_weights_that_all_ranks_have_as_they_are(ranks, scheme):
    """It broadcasts them dense and copies them back; ternary weights packed from their own values would move."""
    assert all(seen["ddp_broadcast"][scheme]["same"] for seen in ranks)


@pytest.mark.parametrize("scheme", [name for name in ALL if "ternary" not in name])
def test_ddp_brings_other_weights_to_those_of_rank_0(ranks, scheme):
    """Packed anew from dense values, so up to the rounding of scales."""
    assert ranks[0]["ddp_broadcast"][scheme]["moved"] == 0
    assert ranks[1]["ddp_broadcast"][scheme]["moved"] < 1e-3
    assert ranks[1]["ddp_broadcast"][scheme]["class"] == "QuantizedTensor"


def test_other_ways_to_shard_run(ranks):
    """Kept on the CPU, moved to another dtype after the cut, compiled by layer, alone on a mesh of one rank."""
    moved = ["torch.bfloat16", "QuantizedTensor"]  # the root stays gathered after its forward pass
    for seen in ranks:
        assert seen["other_ways"] == {"offloaded": True, "moved": moved, "compiled": True, "alone": True}


def test_a_rank_keeps_rows_and_nothing_dense_beside_them(ranks):
    """The flat view that FSDP2 holds is unpacked only when it is read."""
    assert ranks[0]["a_shard"] == {
        "class": "RowShard",
        "shape": [17, 64],
        "is_shard": True,
        "flat": ["FlatShard", True],
    }
    assert ranks[1]["a_shard"]["shape"] == [16, 64]


def test_what_cannot_be_cut_is_refused(ranks):
    """Never unpacked in silence; on every rank, so that none waits for another."""
    help_ = (
        " Call bedstone.quant.sharding.prepare_for_sharding(model, ranks) first: it expands nested scales, and names the "
        "weights to pass to fully_shard as ignored_params."
    )
    wanted = {
        "block": "nf4 cannot be cut at rows 0 to 3: a block of 64 ends every 2 rows of 96." + help_,
        "nested": "nf4 cannot be cut at rows 0 to 4: a group of 256 scales ends every 256 rows of 64." + help_,
        "columns": "A packed int8 weight is sharded by rows, Shard(0), not Shard(1).",
    }
    for seen in ranks:
        assert seen["refusals"] == {name: {"error": error, "untouched": True} for name, error in wanted.items()}


def test_the_recipe_of_the_documentation_leaves_an_adapter(ranks):
    """It was run by both ranks; the adapter fits a model in one process, and has moved."""
    assert all(seen["recipe"] > 1e-4 for seen in ranks)
