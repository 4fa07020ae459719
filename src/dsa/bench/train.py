"""Whole training steps of models: dense against sparse, and where the time of a sparse step goes."""

import itertools
from typing import Any

import torch

from dsa import build_model, compose
from dsa.bench.measure import Work, machine, peak_memory, take_turns
from dsa.build import build_data
from dsa.judging.speed import PARTS, quiet_profile
from dsa.training.step import last_step, random_rows


def measure(
    lengths: list[int], k: int, indexer: str, models: list[str], batches: list[int], backend: str, rounds: int,
    memory: list[str], dtype: str, compiled: bool, device: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row per (model, rows, length, component); components are those of a sparse step, "rest" and "total"; where
    layers are compiled also "not compiled", a whole step without it beside a dense one without it.

    The parts are the profiler's shares of a step, forward and backward, scaled to the step's time without it. Where
    layers are recomputed there is the total alone, since a part runs within the backward pass of another, and on a
    GPU, which computes while the host goes on.

    Args:
        models: options of conf/model.
        batches: numbers of rows.
        memory: settings of the group that are true.
        dtype: of the backbone, as train.py takes it.
        device: where they compute.
        compiled: their layers are, dense ones too.
    """
    table = []
    for model, batch, length in itertools.product(models, batches, lengths):
        choices = [f"model={model}", f"seq_len={length}", f"indexer={indexer}", "pattern=causal", f"ops={backend}"]
        saved = [f"memory.{name}=true" for name in memory]
        spec = compose([*choices, "selector=topk", f"selector.k={k}", "memory=none", f"dtype={dtype}", *saved])
        data, here = build_data(spec), torch.device(device)
        rows = random_rows(batch, length, data.vocab_size, here)
        steps = ["total", "not compiled"] if compiled else ["total"]
        names = [f"{step}, {way}" for step in steps for way in ("sparse", "dense")]
        nets = {name: build_model(spec, data.vocab_size).train().to(here) for name in names}
        if compiled:
            for name in names[:2]:
                nets[name].compile_layers()
        works = {name: last_step(spec, nets[name], data, rows, name.endswith("sparse"), here) for name in names}
        times = take_turns(works, rounds, here)
        peaks = {name: peak_memory(work, here) / 1e6 for name, work in works.items()}
        parts = {"total": 1.0} if spec.memory.checkpoint or here.type != "cpu" else shares(works["total, sparse"])
        components = {name: ("total", share) for name, share in parts.items()} | {
            name: (name, 1.0) for name in steps[1:]
        }
        format_name = {"bf16": "bfloat16", "fp32": "float32"}[spec.dtype]
        for component, (step, share) in components.items():
            ms, dense_ms = share * times[f"{step}, sparse"], times[f"{step}, dense"]
            table.append(
                {
                    "model": model,
                    "rows": batch,
                    "length": length,
                    "component": component,
                    "direction": "train",
                    "ms": ms,
                    "dense_ms": dense_ms,
                    "dtype": format_name,
                    "dense_ms_by_dtype": {format_name: dense_ms},
                    "ratio": dense_ms / ms,
                    "peak_mb": peaks[f"{step}, sparse"],
                    "dense_peak_mb": peaks[f"{step}, dense"],
                    "flops": None,
                    "gflops_per_s": None,
                    "machine": machine(here),
                }
            )
    return table


def shares(work: Work) -> dict[str, float]:
    """Share of each part in the time of a step; a part's backward is found by the sequence numbers of its forward."""
    with quiet_profile() as seen:
        work()
    events = [event for event in seen.events() if event.name != "[memory]"]
    end = max(event.time_range.end for event in events)
    begin = min(event.time_range.start for event in events)
    found = {name: 0.0 for name in PARTS}
    backward: dict[int, str] = {}
    for name in PARTS:
        for span in (event for event in events if event.name == f"dsa/{name}"):
            found[name] += span.time_range.elapsed_us()
            for event in events:
                inside = span.time_range.start <= event.time_range.start <= span.time_range.end
                if inside and event.sequence_nr >= 0 and event.thread == span.thread:
                    backward[event.sequence_nr] = name
    for event in events:
        if event.name.startswith("autograd::engine::evaluate_function") and event.sequence_nr in backward:
            found[backward[event.sequence_nr]] += event.time_range.elapsed_us()
    total = end - begin
    named = {name: time / total for name, time in found.items()}
    return {**named, "rest": max(1 - sum(named.values()), 0.0), "total": 1.0}
