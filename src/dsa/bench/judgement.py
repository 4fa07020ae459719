"""One judgement and its parts: what a composition costs once its base and indexers are there."""

from collections.abc import Sequence
from typing import Any

import torch

from dsa import compose
from dsa.bench.measure import Work, machine, take_turns
from dsa.build import attach_routers, build_backbone, build_data, build_indexers
from dsa.judging.certificate import FOUND, certify, most_kept
from dsa.judging.evaluation import evaluate, make_trainer
from dsa.judging.judge import judge, probe_rows
from dsa.judging.probe import observed, probe


def measure(overrides: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Rows of milliseconds: routers put on the base, the evaluation, the probe, the certificate of the first
    composition on a base and that of each further one, and the whole of the first.

    Args:
        overrides: as train.py takes them.

    Raises:
        ValueError: a setting is impossible.
    """
    spec = compose(list(overrides))
    data = build_data(spec)
    model = build_backbone(spec, data.vocab_size)
    indexers = build_indexers(spec, model) if spec.uses_indexer else None
    device = make_trainer(spec.trainer, spec.dtype).strategy.root_device
    tokens, asked = probe_rows(data)
    tokens, asked = tokens.to(device), None if asked is None else asked.to(device)
    model.to(device)

    def routed() -> None:
        attach_routers(spec, model, indexers)
        model.to(device)

    works: dict[str, Work] = {
        "routers": routed,
        "evaluation": lambda: evaluate(spec.trainer, spec.dtype, data, model, sparse=True),
        "probe": lambda: probe(model, tokens, asked),
        "whole": lambda: (FOUND.pop(model, None), judge(spec.trainer, spec.dtype, data, model)),
    }
    if model.given:
        routed()
        most = most_kept(observed(model, tokens))
        works["certificate"] = lambda: (FOUND.pop(model, None), certify(model, tokens, most))
        works["certificate, further"] = lambda: certify(model, tokens, most)
    with torch.no_grad():
        times = take_turns(works, rounds)
    rows = data.eval_batches * data.eval_batch_size
    shared = {"model": spec.model.option, "length": spec.seq_len, "rows": rows, "dtype": spec.dtype}
    return [
        shared | {"what": name, "ms": ms, "of": ms / times["whole"], "machine": machine()} for name, ms in times.items()
    ]
