"""What a model selects of a text as an array that inference engines return too, and passes that replay one.

The array is the one that vLLM returns with `--enable-return-indexer-topk` (vllm-project/vllm, pull request 49555, open
when this was written): npy, int32, [tokens, layers, k], a layer for each indexer. The order of a token's keys is not
told there; here they are ascending, and what is left of k is -1.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dsa.backbones import Backbone, Observation, Pass, Router
from dsa.ops import Selection


@torch.no_grad()
def dump_indices(model: Backbone, tokens: Int[Tensor, "1 time"], file: str | Path) -> Int[np.ndarray, "time layer k"]:
    """Write the positions that each token of a text attends to, in each layer that selects.

    Args:
        model: a backbone: a loaded run, or `dsa.attached(model)` of a model of transformers.
        file: npy; it is overwritten.

    Returns: what was written.

    Raises:
        ValueError: it is no backbone, none of its layers selects, or not one text; or heads of a layer select apart, or
            it attends to entries of several tokens, for which the array has no place.
    """
    if not isinstance(model, Backbone):
        raise ValueError(f"indices: {type(model).__name__} is no backbone; give dsa.attached(model), or a loaded run.")
    if any(site.stride > 1 for site in model.sites):
        raise ValueError("indices: this model attends to compressed entries, for which the array has no place.")
    if not any(isinstance(router, Router) for router in model.routers):
        raise ValueError("indices: no layer of this model selects; its attention is dense.")
    if tokens.dim() != 2 or len(tokens) != 1 or not tokens.numel():
        raise ValueError(f"indices: tokens of shape {tuple(tokens.shape)}; give one text, [1, time].")
    seen: list[Observation] = []
    training = model.training
    model.eval()
    model.run(tokens, Pass(observe=seen.append))
    model.train(training)
    indices = indices_of(model, seen)
    with Path(file).open("wb") as out:
        np.save(out, indices, allow_pickle=False)
    return indices


def replay_indices(
    model: Backbone, source: str | Path | Int[np.ndarray, "time layer k"], device: torch.device | None = None
) -> Pass:
    """A pass over the text that attends to these positions, whatever the indexers would have selected.

    With a cache (`dataclasses.replace(how, cache=Cache())`) the text may come in parts.

    Args:
        source: the array, or its npy file; keys of a token in any order, unused places negative.

    Raises:
        ValueError: it is no npy file, of another shape or type, without tokens, has other layers than the model, or a
            token that attends to a later or no key, or to one twice.
    """
    given = source if isinstance(source, np.ndarray) else array_in(Path(source))
    own = [router.site for router in model.routers if isinstance(router, Router)]
    if given.ndim != 3 or given.dtype.kind != "i" or not len(given):
        raise ValueError(f"indices: shape {given.shape} of {given.dtype}; give integers [tokens, layers, k].")
    if given.shape[1] != len(own):
        raise ValueError(f"indices: {given.shape[1]} layers; {len(own)} of this model select.")
    return Pass(replay={site: checked(given[:, layer], layer, device) for layer, site in enumerate(own)})


def array_in(file: Path) -> np.ndarray:
    """The array of an npy file."""
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"indices: {file} is no npy file of numbers; give one that dump_indices wrote.") from error


def checked(given: Int[np.ndarray, "time k"], layer: int, device: torch.device | None) -> Selection:
    """The positions of one layer as a selection."""
    later = np.iinfo(np.int32).max
    positions = torch.from_numpy(np.sort(np.where(given < 0, later, np.minimum(given, later - 1)), -1).astype(np.int32))
    used = positions < later
    token = torch.arange(len(positions))[:, None]
    twice = (positions[:, 1:] == positions[:, :-1]) & used[:, 1:]
    for wrong, what in (
        ((positions > token) & used, "attends to a later one"),
        (twice, "attends to one twice"),
        (~used.any(-1, keepdim=True), "attends to none"),
    ):
        if wrong.any():
            raise ValueError(f"indices: token {int(wrong.any(-1).nonzero()[0])} of layer {layer} {what}.")
    counts = used.sum(-1).int()
    positions = torch.where(used, positions, -1)[:, : max(int(counts.max()), 1)]
    return Selection(positions[None, None].to(device), counts[None, None].to(device))


def indices_of(model: Backbone, seen: Sequence[Observation]) -> Int[np.ndarray, "time layer k"]:
    """What was observed of one text, in one pass or in parts that follow each other.

    Raises:
        ValueError: heads of a layer select apart.
    """
    own = [router.site for router in model.routers if isinstance(router, Router)]
    layers = [[positions_of(one) for one in seen if one.layer == site] for site in own]
    most = max(part.shape[1] for parts in layers for part in parts)
    wide = [
        [np.pad(part, ((0, 0), (0, most - part.shape[1])), constant_values=-1) for part in parts] for parts in layers
    ]
    return np.stack([np.concatenate(parts) for parts in wide], 1)


def positions_of(seen: Observation) -> Int[np.ndarray, "time k"]:
    """The keys of each query of a site; where it selected nothing, every earlier one."""
    if seen.selection is None:
        keys, time = seen.keys.shape[2], seen.queries.shape[2]
        every = np.arange(keys, dtype=np.int32)
        return np.where(every <= np.arange(keys - time, keys)[:, None], every, np.int32(-1))
    rows, groups = seen.selection.positions.shape[:2]
    if rows > 1 or groups > 1:
        raise ValueError(f"indices: {rows} rows and {groups} groups of heads; the array has room for one of each.")
    return seen.selection.positions[0, 0].int().cpu().numpy()
