"""A warm-up step of many indexers: trained together, and one by one; and where the time of the step goes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsa import compose, ops
from dsa.backbones import Backbone, Pass, SiteInputs
from dsa.backbones.frozen import held_in
from dsa.backbones.router import attention_of
from dsa.bench.measure import Work, machine, peak_memory, take_turns
from dsa.build import build_backbone, build_data, build_indexers
from dsa.indexers import Indexer


def measure(indexers: Sequence[str], overrides: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Rows of milliseconds: the base's forward pass, the step together (with the backend given, and with blocks of
    queries through PyTorch's matrix products), the steps apart, and their ratio; the backbone in the number format in
    which train.py would run it.

    Args:
        indexers: options of conf/indexer.
        overrides: what else is given, as train.py takes it.

    Raises:
        ValueError: a setting is impossible.
    """
    specs = [compose([*overrides, f"indexer={name}"]) for name in indexers]
    data = build_data(specs[0])
    base = build_backbone(specs[0], data.vocab_size).eval()
    members = [build_indexers(spec, base) for spec in specs]
    tokens = data.batch("bench", 0).tokens
    half = specs[0].dtype == "bf16"
    if half:
        held_in(torch.bfloat16, base)
    alone = [step(base, [member], tokens, spec.ops, half) for member, spec in zip(members, specs, strict=True)]
    works: dict[str, Work] = {
        "base": lambda: forward(base, tokens, Pass(sparse=False, logits=False), half),
        "together": step(base, members, tokens, specs[0].ops, half),
        "blocks": step(base, members, tokens, "blocked", half),
        "apart": lambda: [work() for work in alone],
    }
    times = take_turns(works, rounds)
    peak = peak_memory(works["together"]) / 2**20
    shared = {
        "model": specs[0].model.option, "length": specs[0].seq_len, "rows": len(tokens), "indexers": len(members),
        "dtype": specs[0].dtype, "machine": machine(),
    }  # fmt: skip
    return [
        shared | {"what": "forward pass of the base", "ms": times["base"], "of": times["base"] / times["together"]},
        shared | {"what": "step, together", "ms": times["together"], "of": 1.0, "peak_mb": peak},
        shared | {"what": "together, as products", "ms": times["blocks"], "of": times["blocks"] / times["together"]},
        shared | {"what": "steps, apart", "ms": times["apart"], "of": times["apart"] / times["together"]},
    ]


def forward(base: Backbone, tokens: Tensor, how: Pass, half: bool) -> None:
    """A pass without gradients, in the number format that every step enters anew."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, half):
        base.run(tokens, how)


def step(base: Backbone, members: Sequence[Sequence[Indexer]], tokens: Tensor, backend: str, half: bool) -> Work:
    """Forward, losses and gradients of some indexers, at every site."""

    def work() -> Any:
        found: list[Tensor] = []

        def watch(inputs: SiteInputs) -> None:
            hidden = inputs.hidden.float()
            with torch.enable_grad():
                features = [
                    member[inputs.site.index](hidden, inputs.rotary, latent=inputs.latent) for member in members
                ]
                found.extend(ops.indexer_losses(features, attention_of(inputs, backend), backend=backend))

        forward(base, tokens, Pass(sparse=False, watch=watch, logits=False), half)
        with torch.enable_grad():
            torch.stack(found).sum().backward()
        for parameter in (p for member in members for indexer in member for p in indexer.parameters()):
            parameter.grad = None
        return []

    return work
