"""How many slots a router says that a selection needs, without a number of the device."""

import pytest
import torch

from dsa import build_model, compose
from dsa.backbones import Cache, Pass
from dsa.backbones.router import keeps_every_key

SELECTORS = ["topk", "ratio_25", "progressive_cosine", "adaptive_entropy", "adaptive_position", "random", "window"]


@pytest.mark.parametrize("offset", [0, 7])
@pytest.mark.parametrize("pattern", ["causal", "local_global", "multi_head"])
@pytest.mark.parametrize("selector", [*SELECTORS, "topk selector.k=500"])
def test_no_limit_goes_beyond_the_room_of_a_router(selector, pattern, offset):
    name, *settings = selector.split()
    spec = compose([f"selector={name}", *settings, f"pattern={pattern}", "indexer=h1d8", "model=tiny", "seq_len=128"])
    model = build_model(spec, 64)
    router, site = model.router(0), model.sites[0]
    cache = Cache()
    cache.length = offset
    how = Pass(progress=0.4, cache=cache).begun()
    context = router.context(2, 50, torch.device("cpu"), how, None)
    limit = site.budget(router.selector.limit(context), context.time)
    slots, whole = router.room(context._replace(time=context.time.to("meta")), offset, site)
    assert router.room(context, offset, site) == (None, True)  # on the CPU whoever asks need not wait
    if name == "adaptive_position":  # its limits need a number that training moves
        assert slots >= limit.max()
    else:
        assert slots == limit.max() and whole == keeps_every_key(limit, context)
