"""One token of decoding at one layer: selecting and attending with a cache, against dense attention over all of it."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsa import ops
from dsa.backbones import Cache
from dsa.bench.layer import Layer
from dsa.bench.measure import machine
from dsa.ops import IndexFeatures, Zone

Rows = list[dict[str, Any]]
EVERY = (Zone(first=None),)
FLOAT = 4
"""Bytes of a number in the cache."""


def measure(lengths: list[int], layer: Layer, rounds: int) -> Rows:
    """A row per (length, component) of tokens that come one by one after so many.

    Both kinds of attention take turns, each with a cache of its own that grows. `ms` is a token's median; `ratio` is
    the median of a turn's, against all that a dense token takes. `least` is of the fastest tokens, which other work on
    the machine disturbs least. Bytes read are those that the arithmetic needs, whatever the caches of the processor
    spare; bytes held are of the tokens, and with the room that the cache keeps.
    """
    rows: Rows = []
    for length in lengths:
        with torch.no_grad():
            times, caches = turns(length, layer, rounds)
        dense = times["dense", "total"]
        read, dense_read = bytes_read(length, layer)
        for component in ("cache", "select", "attend", "total"):
            sparse = times["sparse", component]
            rows.append(
                {
                    "length": length,
                    "component": component,
                    "ms": statistics.median(sparse),
                    "dense_ms": statistics.median(dense),
                    "ratio": statistics.median(d / s for d, s in zip(dense, sparse, strict=True)),
                    "ms_least": min(sparse),
                    "dense_ms_least": min(dense),
                    "ratio_least": min(dense) / min(sparse),
                    "bytes_read": read[component],
                    "dense_bytes_read": dense_read,
                    "bytes_held": held(length, layer, indexed=True),
                    "dense_bytes_held": held(length, layer, indexed=False),
                    "bytes_with_room": caches["sparse"].nbytes,
                    "machine": machine(),
                }
            )
    return rows


def turns(length: int, layer: Layer, rounds: int) -> tuple[dict[tuple[str, str], list[float]], dict[str, Cache]]:
    """Milliseconds of each part of each token, by kind of attention; and the caches at the end."""
    generator = torch.Generator().manual_seed(0)
    caches = {kind: Cache() for kind in ("sparse", "dense")}
    for kind, cache in caches.items():
        extend(cache, new_tokens(length, layer, generator), kind == "sparse")
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    for turn in range(rounds + 1):
        new = new_tokens(1, layer, generator)
        for kind, token in (("sparse", sparse_token), ("dense", dense_token)):
            parts: dict[str, float] = {}
            begin = time.perf_counter()
            token(caches[kind], new, layer, partial(timed, parts))
            parts["total"] = time.perf_counter() - begin
            for part, seconds in parts.items():
                if turn > 0:  # the first round warms up
                    taken[kind, part].append(seconds * 1e3)
    return taken, caches


def timed(parts: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    done = work()
    parts[name] = time.perf_counter() - begin
    return done


def new_tokens(time: int, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
    """What a layer makes of so many tokens: queries, keys and values, and the indexer's features."""
    heads, dim = layer.index
    shapes = {
        "query": (layer.heads, time, layer.dim), "key": (layer.kv_heads, time, layer.dim),
        "value": (layer.kv_heads, time, layer.dim), "index query": (1, time, heads, dim), "index": (1, time, dim),
        "weight": (1, time, heads),
    }  # fmt: skip
    made = {name: torch.randn(layer.batch, *shape, generator=generator) for name, shape in shapes.items()}
    return made | {"weight": made["weight"].abs()}


def extend(cache: Cache, new: dict[str, Tensor], indexed: bool) -> list[Tensor]:
    """Keys and values so far, and the index keys where there is an indexer."""
    names = ("key", "value", "index") if indexed else ("key", "value")
    whole = [cache.extend(name, 0, new[name], 2, side_by_side=name == "index") for name in names]
    cache.length += new["key"].shape[2]
    return whole


def sparse_token(cache: Cache, new: dict[str, Tensor], layer: Layer, timed: Callable[..., Any]) -> Tensor:
    """A token that attends to the keys that it selects."""
    keys, values, index = timed("cache", lambda: extend(cache, new, indexed=True))
    features = IndexFeatures(new["index query"], index, new["weight"])
    limit = torch.full((layer.batch, 1, 1), layer.k)
    offset = cache.length - 1
    selection = timed("select", lambda: ops.select(features, EVERY, limit, offset=offset, backend=layer.backend))
    out, _ = timed("attend", lambda: ops.attend(new["query"], keys, values, selection, backend=layer.backend))
    return out


def dense_token(cache: Cache, new: dict[str, Tensor], layer: Layer, timed: Callable[..., Any]) -> Tensor:
    """A token that attends to every key."""
    keys, values = timed("cache", lambda: extend(cache, new, indexed=False))
    grouped = layer.heads != layer.kv_heads
    return timed("attend", lambda: F.scaled_dot_product_attention(new["query"], keys, values, enable_gqa=grouped))


def bytes_read(length: int, layer: Layer) -> tuple[dict[str, int], int]:
    """Of the cache, for one token: by each part of the sparse attention, and by the dense one."""
    pair = 2 * layer.kv_heads * layer.dim * FLOAT * layer.batch
    select, attend = length * layer.index[1] * FLOAT * layer.batch, min(layer.k, length) * pair
    return {"cache": 0, "select": select, "attend": attend, "total": select + attend}, length * pair


def held(length: int, layer: Layer, indexed: bool) -> int:
    """Bytes of a cache of so many tokens, without room for more."""
    numbers = 2 * layer.kv_heads * layer.dim + (layer.index[1] if indexed else 0)
    return length * numbers * FLOAT * layer.batch
