"""Measures a machine: python -m dsa.bench attention | decode | train | memory | cohort | judgement | pretrained."""

import argparse
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from dsa.arguments import numbers, whole
from dsa.signals import read_to_the_end

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # it has no public name

SIZES = [*((1, dim) for dim in (1, 2, 4)), *itertools.product(range(1, 5), (8, 16, 32, 64))]
SHIPPED = ",".join(["ultra_light", *(f"h{heads}d{dim}" for heads, dim in SIZES)])
WAYS = "none,checkpoint,offload,chunked,checkpoint+chunked"
FEW = ("h1d8", "h1d64", "h2d16", "h2d32", "h4d64", "ultra_light")
"""Indexers whose warm-up on a pretrained model is timed."""
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {"lengths": [2048, 4096, 8192, 16384], "k": 256, "heads": 8, "dim": 32, "dtype": "fp32"},
    "cuda": {"lengths": [2**n for n in range(12, 18)], "k": 2048, "heads": 32, "kv_heads": [4, 32], "dim": 128,
             "dtype": "bf16"},
}  # fmt: skip
"""Of the attention layer that is measured on a device, where nothing else is given."""


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table, and write rows and a plot if asked to."""
    parser = argparse.ArgumentParser(prog="python -m dsa.bench", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    for add in (add_attention, add_decode, add_train, add_memory, add_cohort, add_judgement, add_pretrained, add_draw):
        add(what)
    given = parser.parse_args(arguments)
    given.run(given)


def add_attention(what: Commands) -> None:
    one = command(what, "attention", layer_of, "select, attend and the indexer loss against dense attention")
    one.add_argument("--lengths", type=numbers, help="tokens (default 2048 to 16384; on cuda 4096 to 131072)")
    one.add_argument("--k", type=whole, help="keys a query keeps (default 256; on cuda 2048)")
    one.add_argument("--heads", type=whole, help="(default 8; on cuda 32)")
    one.add_argument("--kv-heads", type=numbers, help="one after the other (default as heads; on cuda 4,32)")
    one.add_argument("--dim", type=whole, help="of each head (default 32; on cuda 128)")
    one.add_argument("--batch", type=whole, default=1, help="rows (default 1)")
    add_device(one)
    one.add_argument("--dtype", choices=sorted(DTYPES), help="of the attention (default fp32; on cuda bf16)")
    one.add_argument("--formats", default="", help="also time selecting in these options of conf/precision: int8,fp8")
    one.add_argument(
        "--peers", action="store_true", help="also time DeepSeek-V3.2's attention of transformers, and FlexAttention"
    )
    add_kernels(one)
    add_rounds(one, 5)


def add_decode(what: Commands) -> None:
    one = command(what, "decode", tokens_of, "one token after many: select and attend with a cache, against dense")
    add_sizes(one, "4096,8192,16384,32768,65536", 256)
    one.add_argument("--heads", type=whole, default=8)
    one.add_argument("--kv-heads", type=whole, help="key/value heads that the heads share (default: one for each)")
    one.add_argument("--dim", type=whole, default=32, help="of each head (default 32)")
    one.add_argument("--batch", type=whole, default=1, help="rows (default 1)")
    add_kernels(one)
    add_rounds(one, 50)


def add_train(what: Commands) -> None:
    one = command(what, "train", steps_of, "whole training steps of models")
    add_sizes(one, "256,1024,4096", 64)
    add_device(one)
    one.add_argument("--batch", type=numbers, help="rows, as 1,8 (default as train.py: data.batch_size)")
    one.add_argument("--model", type=names, default=["tiny"], help="options of conf/model, as tiny,seed (default tiny)")
    one.add_argument(
        "--dtype", choices=["auto", *sorted(DTYPES)], default="auto", help="of the backbone (default auto, as train.py)"
    )
    one.add_argument("--memory", default="", help="settings of conf/memory, as checkpoint,offload (default none)")
    one.add_argument(
        "--compile", action="store_true", help="torch.compile of the layers, dense ones too, as compile=true"
    )
    add_kernels(one)
    add_rounds(one, 5)


def add_memory(what: Commands) -> None:
    one = command(what, "memory", peaks_of, "most memory that a training step holds, by ways to save it")
    add_sizes(one, "1024,4096,16384", 64)
    add_device(one)
    one.add_argument("--batch", type=whole, default=1, help="rows (default 1)")
    one.add_argument("--model", default="tiny", help="an option of conf/model (default tiny)")
    one.add_argument("--ways", default=WAYS, help=f"options of conf/memory, + for both at once (default {WAYS})")
    add_kernels(one)


def add_cohort(what: Commands) -> None:
    one = command(what, "cohort", cohort_of, "a warm-up step of many indexers, together and apart")
    one.add_argument("--model", default="mqar", help="an option of conf/model (default mqar)")
    one.add_argument("--length", type=whole, default=256, help="tokens (default 256)")
    one.add_argument("--indexers", default=SHIPPED, help="options of conf/indexer (default: the twenty shipped)")
    add_rounds(one, 5)


def add_judgement(what: Commands) -> None:
    one = command(what, "judgement", judgement_of, "one judgement and its parts")
    one.add_argument("overrides", nargs="*", help="as train.py takes them: model=smollm2 seq_len=512")
    add_rounds(one, 5)


def add_pretrained(what: Commands) -> None:
    one = command(what, "pretrained", own_model_of, "what six indexers and a judgement cost on a model of your own")
    example = ["model=smollm2", "seq_len=512"]
    taken = f"as train.py takes them (default: {' '.join(example)})"
    one.add_argument("overrides", nargs="*", default=example, help=taken)
    add_rounds(one, 5)


def add_draw(what: Commands) -> None:
    one = what.add_parser("draw", help="the plot of rows that --json wrote, without measuring")
    one.add_argument("rows", type=Path, help="the file of rows; the plot is written beside it")
    one.set_defaults(run=picture_of)


def command(what: Commands, name: str, run: Callable[[argparse.Namespace], None], told: str) -> argparse.ArgumentParser:
    """One that measures."""
    one = what.add_parser(name, help=told)
    one.add_argument("--json", type=Path, help="write the rows here, and a plot of attention and train beside it")
    one.set_defaults(run=run)
    return one


def add_sizes(one: argparse.ArgumentParser, lengths: str, k: int) -> None:
    one.add_argument("--lengths", type=numbers, default=numbers(lengths), help=f"tokens (default {lengths})")
    one.add_argument("--k", type=whole, default=k, help=f"keys a query keeps (default {k})")


def add_device(one: argparse.ArgumentParser) -> None:
    one.add_argument("--device", type=device, default="cpu", help="where: cpu or cuda (default cpu)")


def add_kernels(one: argparse.ArgumentParser) -> None:
    one.add_argument("--indexer", type=indexer, default="h1d8", help="heads and dims, as h2d16 (default h1d8)")
    one.add_argument("--backend", type=backend, default="auto", help="of dsa.ops (default auto)")


def add_rounds(one: argparse.ArgumentParser, rounds: int) -> None:
    told = f"measurements, of which the median counts (default {rounds})"
    one.add_argument("--rounds", type=whole, default=rounds, help=told)


def picture_of(given: argparse.Namespace) -> None:
    """Draw rows that were measured before."""
    from dsa.bench import report  # late: --help needs no torch

    report.draw(given.rows)


def steps_of(given: argparse.Namespace) -> None:
    """Measure whole training steps."""
    from dsa import compose  # late: --help needs no torch
    from dsa.bench import report, train

    options = {
        name: getattr(given, name) for name in ("lengths", "k", "indexer", "backend", "rounds", "dtype", "device")
    }
    memory, batches = names(given.memory), given.batch or [compose().data.node["batch_size"]]
    title = f"train: {given.indexer}, k {given.k}, backend {given.backend}"
    title += f", memory {given.memory}" if memory else ""
    title += ", compiled (in brackets dense steps that are not)" if given.compile else ""
    rows = train.measure(models=given.model, batches=batches, memory=memory, compiled=given.compile, **options)
    report.show_steps(rows, title)
    if given.json is not None:
        report.write(rows, given.json, title)


def layer_of(given: argparse.Namespace) -> None:
    """Measure one layer's attention; with several numbers of key/value heads one after the other."""
    import torch  # late: --help needs none

    from dsa import compose
    from dsa.bench import attention, report
    from dsa.bench.layer import Layer

    for name, value in DEFAULTS[given.device].items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    many, index = given.kv_heads or [given.heads], heads_and_dims(given.indexer)
    if wrong := [n for n in many if given.heads % n]:
        raise SystemExit(f"--kv-heads {wrong[0]}: give a divisor of the {given.heads} heads.")
    formats = {name: compose([f"precision={name}"]).precision.make() for name in names(given.formats)}
    for kv_heads in many:
        layer = Layer(given.k, index, given.heads, kv_heads, given.dim, given.batch, given.backend,
                      torch.device(given.device), getattr(torch, DTYPES[given.dtype]))  # fmt: skip
        rows = attention.measure(layer, given.lengths, given.rounds, given.peers, formats)
        title = f"attention: {given.indexer}, k {given.k}, batch {given.batch}, backend {given.backend}"
        title += f", {kv_heads} key/value heads" if kv_heads != given.heads or len(many) > 1 else ""
        report.show(rows, title)
        if given.json is not None:
            path = given.json.with_stem(f"{given.json.stem}-kv{kv_heads}") if len(many) > 1 else given.json
            report.write(rows, path, title)


def tokens_of(given: argparse.Namespace) -> None:
    """Measure tokens that come one by one."""
    from dsa.bench import decode, report  # late: --help needs no torch
    from dsa.bench.layer import Layer

    kv_heads = given.kv_heads or given.heads
    if given.heads % kv_heads:
        raise SystemExit(f"--kv-heads {kv_heads}: give a divisor of the {given.heads} heads.")
    layer = Layer(given.k, heads_and_dims(given.indexer), given.heads, kv_heads, given.dim, given.batch, given.backend)
    rows = decode.measure(given.lengths, layer, given.rounds)
    title = (
        f"decode: {given.indexer}, k {given.k}, {given.heads} heads of {given.dim} dims, {kv_heads} of keys and values"
    )
    title += f", batch {given.batch}, backend {given.backend}"
    report.show_tokens(rows, title)
    if given.json is not None:
        report.write_rows(rows, given.json, title)


def peaks_of(given: argparse.Namespace) -> None:
    """Measure ways to save memory."""
    from dsa.bench import memory, report  # late: --help needs no torch

    options = {
        name: getattr(given, name) for name in ("lengths", "k", "indexer", "model", "batch", "backend", "device")
    }
    rows = memory.measure(ways=[way.split("+") for way in given.ways.split(",")], **options)
    title = f"memory: {given.model}, {given.indexer}, k {given.k}, batch {given.batch}, backend {given.backend}"
    report.show_peaks(rows, title)
    if given.json is not None:
        report.write_rows(rows, given.json, title)


def cohort_of(given: argparse.Namespace) -> None:
    """Measure a warm-up step of many indexers."""
    from dsa.bench import cohort  # late: --help needs no torch

    common = [f"model={given.model}", f"seq_len={given.length}"]
    show_parts(given, cohort=cohort.measure(given.indexers.split(","), common, given.rounds))


def judgement_of(given: argparse.Namespace) -> None:
    """Measure one judgement."""
    from dsa.bench import judgement  # late: --help needs no torch

    show_parts(given, judgement=judgement.measure(given.overrides, given.rounds))


def own_model_of(given: argparse.Namespace) -> None:
    """Measure a warm-up step of six indexers on a model, and a judgement."""
    from dsa.bench import cohort, judgement  # late: --help needs no torch

    show_parts(
        given,
        cohort=cohort.measure(FEW, given.overrides, given.rounds),
        judgement=judgement.measure(given.overrides, given.rounds),
    )


def show_parts(given: argparse.Namespace, **measured: list[dict[str, Any]]) -> None:
    """Print what has parts and no dense counterpart, a table for each, and write their rows if asked to."""
    from dsa.bench import report  # late: --help needs no torch

    for title, rows in measured.items():
        report.show_parts(rows, title)
    if given.json is not None:
        report.write_rows(list(itertools.chain(*measured.values())), given.json, given.what)


def device(text: str) -> str:
    """One that is here."""
    import torch  # late: --help needs none

    if text not in DEFAULTS:
        raise argparse.ArgumentTypeError(f"{text}: give cpu or cuda.")
    if text == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("there is no CUDA device here; give --device cpu.")
    return text


def heads_and_dims(text: str) -> tuple[int, int]:
    shape = re.fullmatch(r"h([1-9]\d*)d([1-9]\d*)", text)
    if shape is None:
        raise argparse.ArgumentTypeError(f"{text}: give heads and dims, as h1d8.")
    return int(shape[1]), int(shape[2])


def indexer(text: str) -> str:
    """An indexer by its heads and dims."""
    heads_and_dims(text)
    return text


def backend(text: str) -> str:
    """A backend that can run here."""
    from dsa.ops import checked_backend  # late: --help needs no torch

    try:
        return checked_backend(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


if __name__ == "__main__":
    with read_to_the_end():
        try:
            main()
        except ValueError as error:  # what a setting refuses, in its sentence
            sys.exit(f"error: {error}")
