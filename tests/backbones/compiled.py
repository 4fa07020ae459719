"""A program of its own, as the tests' annotations would be compiled too: a model compiled, and not.

It prints the graphs, as names of what each calls, and how far loss and gradients are apart at most.
"""

import json
import sys
from typing import Any

import torch
from torch import _dynamo as dynamo
from torch._dynamo.backends.debugging import aot_eager

from dsa import build_model, compose
from dsa.backbones import Pass

SMALL = ["model.d_model=32", "model.layers=2", "model.heads=2", "model.ff=64", "data=mqar", "seq_len=64",
         "indexer=h2d8", "pattern=local_global", "selector.k=8", "ops=reference"]  # fmt: skip


def trained(model: Any, run: Any, how: Pass) -> dict[str, torch.Tensor]:
    """Loss and gradients of a pass."""
    tokens = torch.randint(64, (2, 64), generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    out = run(tokens, how)
    loss = out.logits.square().mean() + sum(out.losses.values())
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def main(case: str, *choices: str) -> None:
    """Compare, twice with the compiled model: dense, sparse, or sparse by layers, as `compile=true` has it."""
    model = build_model(compose([*SMALL, *choices]), 64).train()
    how, graphs = Pass(sparse=case != "dense", teach=case != "dense"), []

    def seen(module: Any, inputs: Any) -> Any:
        graphs.append([str(node.target) for node in module.graph.nodes if node.op.startswith("call")])
        return aot_eager(module, inputs)

    wanted = trained(model, model.run, how)
    if case == "layers":
        model.compile_layers()
        run = model.run
        with torch.no_grad():  # another shape in between, as a validation has
            model.eval().run(torch.zeros(3, 48, dtype=torch.long), Pass())
        model.train()
    else:
        run = torch.compile(model.run, backend=seen, fullgraph=case == "dense")
    far = []
    for _ in range(2):
        got = trained(model, run, how)
        assert got.keys() == wanted.keys()
        far.append(max((got[name] - value).abs().max().item() for name, value in wanted.items()))
    made = dynamo.utils.counters["stats"]["unique_graphs"]
    print(json.dumps({"graphs": graphs, "made": made, "far": max(far), "learns": list(wanted)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
