"""Whole training steps of a model: dense against sparse, and where the time of a sparse step goes."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim import Optimizer

from dsa import build_model, compose
from dsa.backbones import Backbone, Pass
from dsa.bench.measure import Work, machine, peak_memory, take_turns
from dsa.judging.speed import quiet_profile

PARTS = ("indexer", "select", "attend", "indexer_loss")


def measure(
    lengths: list[int], k: int, indexer: str, model: str, batch: int, backend: str, rounds: int, memory: list[str]
) -> list[dict[str, Any]]:
    """A row per (length, component); components are those of a sparse step, "rest" and "total".

    The parts are the profiler's shares of a step, forward and backward, scaled to the step's time without it. Where
    layers are recomputed there is the total alone: a part runs within the backward pass of another.

    Args:
        memory: settings of the group that are true.
    """
    rows = []
    for length in lengths:
        choices = [f"model={model}", f"seq_len={length}", f"indexer={indexer}", "pattern=causal", f"ops={backend}"]
        saved = [f"memory.{name}=true" for name in memory]
        spec = compose([*choices, "selector=topk", f"selector.k={k}", "memory=none", *saved])
        net, make_optimizer = build_model(spec).train(), spec.optimizer.make()
        works = {name: step(net, make_optimizer, length, batch, name == "sparse") for name in ("sparse", "dense")}
        times = take_turns(works, rounds)
        peaks = {name: peak_memory(work) / 1e6 for name, work in works.items()}
        parts = {"total": 1.0} if spec.memory.checkpoint else shares(works["sparse"])
        for component, share in parts.items():
            rows.append(
                {
                    "length": length,
                    "component": component,
                    "direction": "train",
                    "ms": share * times["sparse"],
                    "dense_ms": times["dense"],
                    "dense_ms_by_dtype": {"float32": times["dense"]},
                    "ratio": times["dense"] / (share * times["sparse"]),
                    "peak_mb": peaks["sparse"],
                    "dense_peak_mb": peaks["dense"],
                    "flops": None,
                    "gflops_per_s": None,
                    "machine": machine(),
                }
            )
    return rows


def step(net: Backbone, make_optimizer: Callable[..., Optimizer], length: int, batch: int, sparse: bool) -> Work:
    """Forward, backward and update; a dense step trains no indexer."""
    parameters = list(net.parameters()) if sparse else net.groups()["backbone"]
    optimizer = make_optimizer(parameters, lr=1e-4)
    tokens = torch.randint(net.vocab_size, (batch, length + 1), generator=torch.Generator().manual_seed(0))

    def work() -> Any:
        with net.memory.saving():
            logits, losses = net.run(tokens[:, :-1], Pass(sparse=sparse, teach=sparse))
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        torch.stack([loss, *losses.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        return []

    return work


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
