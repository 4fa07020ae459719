"""Measures a machine: python -m dsa.bench attention | decode | train | memory | cohort | judgement | pretrained."""

import argparse
import itertools
import re
import sys
from pathlib import Path
from typing import Any

from dsa.signals import read_to_the_end

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
    alone = what.add_parser("attention", help="select, attend and the indexer loss against dense attention")
    alone.add_argument("--formats", default="", help="also time selecting in these options of conf/precision: int8,fp8")
    alone.add_argument(
        "--peers", action="store_true", help="also time DeepSeek-V3.2's attention of transformers, and FlexAttention"
    )
    alone.add_argument("--device", choices=sorted(DEFAULTS), default="cpu", help="where (default cpu)")
    alone.add_argument("--dtype", choices=sorted(DTYPES), help="of the attention (default fp32; on cuda bf16)")
    alone.add_argument("--kv-heads", type=numbers, help="one after the other (default as heads; on cuda 4,32)")
    token = what.add_parser("decode", help="one token after many: select and attend with a cache, against dense")
    token.add_argument("--kv-heads", type=whole, help="key/value heads that the heads share (default: one for each)")
    alone.add_argument("--heads", type=whole, help="(default 8; on cuda 32)")
    alone.add_argument("--dim", type=whole, help="of each head (default 32; on cuda 128)")
    token.add_argument("--heads", type=whole, default=8)
    token.add_argument("--dim", type=whole, default=32, help="of each head (default 32)")
    for each in (alone, token):
        each.add_argument("--batch", type=whole, default=1, help="rows (default 1)")
    step = what.add_parser("train", help="whole training steps of models")
    step.add_argument("--batch", type=numbers, help="rows, as 1,8 (default as train.py: data.batch_size)")
    step.add_argument(
        "--model", type=names, default=["tiny"], help="options of conf/model, as tiny,seed (default tiny)"
    )
    most = what.add_parser("memory", help="most memory that a training step holds, by ways to save it")
    most.add_argument("--model", default="tiny", help="an option of conf/model (default tiny)")
    most.add_argument("--batch", type=whole, default=1, help="rows (default 1)")
    most.add_argument("--ways", default=WAYS, help=f"options of conf/memory, + for both at once (default {WAYS})")
    step.add_argument(
        "--dtype", choices=["auto", *sorted(DTYPES)], default="auto", help="of the backbone (default auto, as train.py)"
    )
    step.add_argument("--memory", default="", help="settings of conf/memory, as checkpoint,offload (default none)")
    step.add_argument(
        "--compile", action="store_true", help="torch.compile of the layers, dense ones too, as compile=true"
    )
    again = what.add_parser("draw", help="the plot of rows that --json wrote, without measuring")
    again.add_argument("rows", type=Path, help="the file of rows; the plot is written beside it")
    alone.add_argument("--lengths", type=numbers, help="tokens (default 2048 to 16384; on cuda 4096 to 131072)")
    alone.add_argument("--k", type=whole, help="keys a query keeps (default 256; on cuda 2048)")
    for each, lengths, k in (
        (token, "4096,8192,16384,32768,65536", 256), (step, "256,1024,4096", 64), (most, "1024,4096,16384", 64),
    ):  # fmt: skip
        each.add_argument("--lengths", type=numbers, default=numbers(lengths), help=f"tokens (default {lengths})")
        each.add_argument("--k", type=whole, default=k, help=f"keys a query keeps (default {k})")
    for each, rounds in ((alone, 5), (token, 50), (step, 5), (most, None)):
        each.add_argument("--indexer", default="h1d8", help="heads and dims, as h2d16 (default h1d8)")
        each.add_argument("--backend", default="auto", help="of dsa.ops (default auto)")
        each.add_argument("--json", type=Path, help="write the rows here, and a plot of attention and train beside it")
        if rounds is not None:
            many = f"measurements, of which the median counts (default {rounds})"
            each.add_argument("--rounds", type=whole, default=rounds, help=many)
    cohort = what.add_parser("cohort", help="a warm-up step of many indexers, together and apart")
    cohort.add_argument("--model", default="mqar", help="an option of conf/model (default mqar)")
    cohort.add_argument("--length", type=whole, default=256, help="tokens (default 256)")
    cohort.add_argument("--indexers", default=SHIPPED, help="options of conf/indexer (default: the twenty shipped)")
    one = what.add_parser("judgement", help="one judgement and its parts")
    one.add_argument("overrides", nargs="*", help="as train.py takes them: model=smollm2 seq_len=512")
    given_model = what.add_parser("pretrained", help="what six indexers and a judgement cost on a model of your own")
    example = ["model=smollm2", "seq_len=512"]
    given_model.add_argument(
        "overrides", nargs="*", default=example, help=f"as train.py takes them (default: {' '.join(example)})"
    )
    for each in (cohort, one, given_model):
        each.add_argument(
            "--rounds", type=whole, default=5, help="measurements, of which the median counts (default 5)"
        )
        each.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args(arguments)
    if given.what == "draw":
        from dsa.bench import report

        report.draw(given.rows)
        return
    if given.what in ("cohort", "judgement", "pretrained"):
        parts_of(given)
        return
    shape = re.fullmatch(r"h([1-9]\d*)d([1-9]\d*)", given.indexer)
    if shape is None:
        parser.error(f"--indexer {given.indexer}: give heads and dims, as h1d8.")
    from dsa.ops import checked_backend  # late: --help needs no torch

    checked_backend(given.backend)
    index = (int(shape[1]), int(shape[2]))
    if given.what == "decode":
        tokens_of(given, index)
        return
    if given.what == "attention":
        layer_of(given, index)
        return
    if given.what == "memory":
        peaks_of(given)
        return
    from dsa import compose  # late: --help needs no torch
    from dsa.bench import report, train

    options = {name: getattr(given, name) for name in ("lengths", "k", "backend", "rounds", "dtype")}
    memory, batches = names(given.memory), given.batch or [compose().data.node["batch_size"]]
    title = f"train: {given.indexer}, k {given.k}, backend {given.backend}"
    title += f", memory {given.memory}" if memory else ""
    title += ", compiled (in brackets dense steps that are not)" if given.compile else ""
    rows = train.measure(
        indexer=given.indexer, models=given.model, batches=batches, memory=memory, compiled=given.compile, **options
    )
    report.show_steps(rows, title)
    if given.json is not None:
        report.write(rows, given.json, title)


def layer_of(given: argparse.Namespace, index: tuple[int, int]) -> None:
    """Measure one layer's attention; with several numbers of key/value heads one after the other."""
    import torch  # late: --help needs none

    from dsa import compose
    from dsa.bench import attention, report
    from dsa.bench.layer import Layer

    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: there is no CUDA device here; give --device cpu.")
    for name, value in DEFAULTS[given.device].items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    many = given.kv_heads or [given.heads]
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


def tokens_of(given: argparse.Namespace, index: tuple[int, int]) -> None:
    """Measure tokens that come one by one."""
    from dsa.bench import decode, report  # late: --help needs no torch
    from dsa.bench.layer import Layer

    kv_heads = given.kv_heads or given.heads
    if given.heads % kv_heads:
        raise SystemExit(f"--kv-heads {kv_heads}: give a divisor of the {given.heads} heads.")
    layer = Layer(given.k, index, given.heads, kv_heads, given.dim, given.batch, given.backend)
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

    options = {name: getattr(given, name) for name in ("lengths", "k", "indexer", "model", "batch", "backend")}
    rows = memory.measure(ways=[way.split("+") for way in given.ways.split(",")], **options)
    title = f"memory: {given.model}, {given.indexer}, k {given.k}, batch {given.batch}, backend {given.backend}"
    report.show_peaks(rows, title)
    if given.json is not None:
        report.write_rows(rows, given.json, title)


def parts_of(given: argparse.Namespace) -> None:
    """Measure what has parts and no dense counterpart."""
    from dsa.bench import cohort, judgement, report  # late: --help needs no torch

    rows: list[dict[str, Any]] = []
    if given.what == "cohort":
        common = [f"model={given.model}", f"seq_len={given.length}"]
        rows += shown("cohort", cohort.measure(given.indexers.split(","), common, given.rounds))
    if given.what == "pretrained":
        rows += shown("cohort", cohort.measure(FEW, given.overrides, given.rounds))
    if given.what != "cohort":
        rows += shown("judgement", judgement.measure(given.overrides, given.rounds))
    if given.json is not None:
        report.write_rows(rows, given.json, given.what)


def shown(title: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, printed."""
    from dsa.bench import report  # late: --help needs no torch

    report.show_parts(rows, title)
    return rows


def names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def whole(text: str) -> int:
    """A number of something."""
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1.")
    return int(text)


def numbers(text: str) -> list[int]:
    return [whole(part) for part in text.split(",")]


if __name__ == "__main__":
    with read_to_the_end():
        try:
            main()
        except ValueError as error:  # what a setting refuses, in its sentence
            sys.exit(f"error: {error}")
