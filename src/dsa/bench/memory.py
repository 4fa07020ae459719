"""Most memory that a training step holds, by how it is saved and by length."""

from typing import Any

import torch

from dsa import build_model, compose
from dsa.bench.measure import machine, peak_memory
from dsa.build import build_data
from dsa.training.step import last_step, random_rows


def measure(
    lengths: list[int], k: int, indexer: str, model: str, batch: int, backend: str, device: str,
    ways: list[list[str]],
) -> list[dict[str, Any]]:  # fmt: skip
    """A row per (way, length): the peak of a step with attention on the selection, and of one with dense attention.

    Args:
        device: where it computes, whose memory is told.
        ways: options of conf/memory, of which each names what is to be had together.
    """
    table = []
    for length in lengths:
        common = [f"model={model}", f"seq_len={length}", f"indexer={indexer}", "pattern=causal", f"ops={backend}"]
        for way in ways:
            spec = compose([*common, "selector=topk", f"selector.k={k}", "dtype=fp32", *together(way)])
            data, here = build_data(spec), torch.device(device)
            rows = random_rows(batch, length, data.vocab_size, here)
            net = build_model(spec, data.vocab_size).train().to(here)
            steps = [last_step(spec, net, data, rows, sparse, here) for sparse in (True, False)]
            peaks = [peak_memory(step, here) / 1e6 for step in steps]
            table.append(
                {"length": length, "memory": "+".join(way), "peak_mb": peaks[0], "dense_peak_mb": peaks[1],
                 "machine": machine(here)}
            )  # fmt: skip
    return table


def together(way: list[str]) -> list[str]:
    """Settings that have all that some options of conf/memory have."""
    found = {"memory": "none"}
    for name in way:
        own = compose([f"memory={name}"]).memory
        found |= {f"memory.{part}": str(value).lower() for part, value in vars(own).items() if value}
    return [f"{name}={value}" for name, value in found.items()]
