"""That Triton's kernels compile for a GPU which is not here, and what they would take of it."""

import importlib
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from dsa.ops.triton import sizes

REAL, INT, LONG = "*fp32", "*i32", "*i64"
POINTERS = {
    "given": "q k v queries weights",
    REAL: "logsumexp sink out grad delta grad_q grad_k grad_v scores logsumexps entropies masses summed told slopes "
    "losses valid grad_queries grad_keys grad_weights",
    INT: "positions counts ranks zones thresholds last_ties broken places stops",
    LONG: "starts lists",
}
KINDS = {name: kind for kind, names in POINTERS.items() for name in names.split()} | {"scale": "fp32", "cap": "fp32"}
ROWS, LISTS, TILE = ("ROWS", "HEADS", "SLOTS", "DIM"), ("KEYS", "LIST", "DIM"), ("TILE", "DIM")
SPANS = ("ROWS", "SPAN")
INDEX = {"RELU": True, "WEIGHTED": True}
KERNELS = {
    "attend_kernels.forward": (ROWS, {"CAP": True, "SINK": True}),
    "attend_kernels.dense_logsumexp": (TILE, {"CAP": True, "SINK": True}),
    "backward_kernels.queries_gradient": (ROWS, {"CAP": True}),
    "backward_kernels.keys_gradient": (LISTS, {"CAP": True}),
    "select_kernels.score": (TILE, INDEX | {"ZONES": 2}),
    "select_kernels.threshold": (SPANS, {}),
    "select_kernels.compact": (SPANS, {"ZONES": 2, "FORCED": 1}),
    "select_kernels.row_sums": (SPANS, {"ZONES": 2}),
    "loss_kernels.divergence": (SPANS, {"SLOPES": True}),
    "dense_loss_kernels.masses": (TILE, {"CAP": True}),
    "dense_loss_kernels.queries_gradient": (TILE, INDEX),
    "dense_loss_kernels.keys_gradient": (TILE, INDEX),
    "selected_loss_kernels.masses": (ROWS, {"CAP": True}),
    "selected_loss_kernels.scores": (ROWS, INDEX),
    "selected_loss_kernels.queries_gradient": (ROWS, INDEX),
    "selected_loss_kernels.keys_gradient": (LISTS, INDEX),
}
WIDEST = [name for name, (cut, _) in KERNELS.items() if cut == TILE]  # they hold the most in shared memory
PRODUCTS = [name for name, (cut, _) in KERNELS.items() if cut in (ROWS, TILE)]  # the others have one key a program
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


def made_of(name: str, given: str, dim: int, heads: int, generation: int):
    """A kernel as a launch would make it, for inputs of a format and a generation of devices (80: A100, 86: RTX 30)."""
    from triton import compile as compiled
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, _, kernel = name.partition(".")
    function = getattr(importlib.import_module(f"dsa.ops.triton.{module}"), kernel)
    cut, constants = KERNELS[name]
    chosen = {
        "ROWS": sizes.ROWS, "HEADS": heads, "SLOTS": sizes.slots(dim), "DIM": dim, "TILE": sizes.tile(dim),
        "KEYS": sizes.KEYS, "LIST": sizes.LIST, "SPAN": sizes.SPAN,
    }  # fmt: skip
    constants = constants | {name: chosen[name] for name in cut}
    kinds = KINDS | ({"keys": "given"} if "queries" in function.arg_names else {})  # a number of keys elsewhere
    kinds |= dict.fromkeys(constants, "constexpr")
    signature = {x: given if kinds.get(x) == "given" else kinds.get(x, "i32") for x in function.arg_names}
    warps = {"num_warps": sizes.warps(constants.get("DIM", 1))}
    return compiled(ASTSource(function, signature, constants), target=GPUTarget("cuda", generation, 32), options=warps)


def spilled(program: bytes, folder: Path) -> int:
    """Bytes of each thread that registers have no room for, so that they lie in the device's memory."""
    import triton

    (folder / "program.cubin").write_bytes(program)
    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    line = [str(reader), "-res-usage", str(folder / "program.cubin")]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    (stack,) = re.findall(r"STACK:(\d+)", told)
    return int(stack)


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_compile_for_a_gpu_that_is_not_here(name, tmp_path):
    made = made_of(name, "*bf16", 128, 16, 80)
    assert made.metadata.shared < 48 * 1024  # bytes; half of what every GPU since 2020 has for a program
    assert spilled(made.asm["cubin"], tmp_path) == 0
    single = made_of(name, "*fp32", 128, 16, 80)
    assert single.metadata.shared < 96 * 1024
    assert (
        spilled(single.asm["cubin"], tmp_path) <= 136
    )  # as many as one kernel does, the keys' gradient of dense losses


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("generation", [80, 90])
def test_products_of_half_formats_go_through_the_matrix_units(name, generation):
    for given in ("bf16", "fp16"):
        assert re.search(
            rf"mma\S+\.{given.replace('fp', 'f')}\.", made_of(name, f"*{given}", 128, 16, generation).asm["ptx"]
        )


@needs_triton
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("name", WIDEST)
def test_the_widest_heads_have_room_on_small_gpus(name):
    assert made_of(name, "*fp32", sizes.HEAD_DIM, 1, 86).metadata.shared < 99 * 1024
