"""Where a pretrained model is got into: transformers' attention interface, and what each attention layer gets there.

The interface hands over queries and keys after rotation, key/value heads unrepeated; hidden states are seen by a
forward pre-hook. Nothing of anybody's modelling code is copied, and a layer that is not routed runs what it always ran.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dsa.backbones.attention import Losses, attend_routed
from dsa.backbones.contracts import Attended, Cache, Site, SiteInputs
from dsa.backbones.pretrained.hook import LAYER, Given, Hook, Layer, Read
from dsa.backbones.router import Router
from dsa.ops import Rotation
from dsa.pretrained.libraries import transformers

PLAIN, EAGER = "dsa_sdpa", "dsa_eager"
"""Names on the interface: dense layers run torch's fused attention, or the model's own where it has sinks or a cap."""
FROM_LATENT = "q_b_proj"
"""What transformers calls the second half of a query projection of low rank: it is given the latent, normed."""


def register() -> None:
    """Make the two names known to transformers. A mask name that it does not know would silently lose causality."""
    library = transformers()
    from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

    for name, mask in ((PLAIN, sdpa_mask), (EAGER, eager_mask)):
        library.AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(name, mask)


def attention(
    module: nn.Module,
    query: Float[Tensor, "batch head time dim"],
    key: Float[Tensor, "batch kv_head key dim"],
    value: Float[Tensor, "batch kv_head key value_dim"],
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch time head value_dim"], Tensor | None]:
    """What transformers calls at each attention layer of a model."""
    layer: Layer | None = getattr(module, LAYER, None)
    if layer is None:
        return own_attention(module, query, key, value, attention_mask, **kwargs)
    if layer.hook.how is None:
        check_dense(layer)
        return own_attention(module, query, key, value, attention_mask, **kwargs)
    if not layer.shapes:
        note(layer, module, query, key, value, kwargs)
    if layer.hidden is None:
        raise ValueError(
            f"model: {type(module).__name__} calls transformers' attention interface more than once a pass; sparse "
            "attention is put into layers that call it once."
        )
    hook, site, given = layer.hook, layer.site, layer.take()
    if site is None:
        return own_attention(module, query, key, value, attention_mask, **kwargs)
    assert hook.how is not None
    how, router, sink = hook.how, hook.router(site.index), kwargs.get("s_aux")
    if how.watch is not None:
        how.watch(SiteInputs(site, given.hidden, query, key, rotation(hook, given.hidden), sink, given.latent))
    if how.sparse and router is not None:
        return over_selection(module, layer, router, given, query, key, value, attention_mask, sink), None
    dense, weights = own_attention(module, query, key, value, attention_mask, **kwargs)
    if how.after is not None:
        shown = dense.transpose(1, 2)
        how.after(Attended(site, value, shown))
        dense = shown.transpose(1, 2)  # what follows comes from what was shown: its gradient arrives there
    return dense, weights


def over_selection(
    module: nn.Module, layer: Layer, router: Router, given: Given, query: Float[Tensor, "batch head time dim"],
    key: Float[Tensor, "batch kv_head key dim"], value: Float[Tensor, "batch kv_head key value_dim"],
    mask: Tensor | None, sink: Float[Tensor, "head"] | None,
) -> Float[Tensor, "batch time head value_dim"]:  # fmt: skip
    """Attention over what the router of a layer chose, of the texts that the mask leaves; zeros at its padding."""
    hook, site, past = layer.hook, layer.site, given.past
    assert site is not None
    if layer.window is not None:
        check_within(layer.window, key.shape[2] if past is None else past.get_seq_length(module.layer_idx))
    if past is not None:
        check_grows(past, module.layer_idx)
    value = F.pad(value, (0, key.shape[3] - layer.values))  # the ops take values as wide as keys
    out = torch.zeros_like(query)
    before = key.shape[2] - query.shape[2]
    for rows, tokens in hook.stretches(mask, len(query), key.shape[2]):
        warn_beyond(hook.context, tokens.stop - tokens.start)
        new = slice(max(tokens.start - before, 0), tokens.stop - before)
        if new.stop <= new.start:
            continue
        q, k, v, states = query[rows, :, new], key[rows, :, tokens], value[rows, :, tokens], given.hidden[rows, new]
        own = hook.part(rows)
        if past is not None:
            own = replace(own, cache=kept_of(hook, past, site, rows.start, k, q.shape[2]))
        turn = rotation(hook, states, own.offset)
        low = None if given.latent is None else given.latent[rows, new]
        out[rows, :, new], losses = attend_routed(router, SiteInputs(site, states, q, k, turn, sink, low), v, own)
        hook.losses.append(losses)
    return out[..., : layer.values].transpose(1, 2)


def check_dense(layer: Layer) -> None:
    """Refuse a layer that is to attend sparsely and is reached outside a pass of the whole model, which says how."""
    if layer.site is not None and layer.hook.router(layer.site.index) is not None:
        raise ValueError(
            f"model: layer {layer.site.number} was reached by a part of the model, and would attend densely; call the "
            "model itself (model(...), model.generate(...)), with output_hidden_states=True for what is inside."
        )


def check_within(window: int, tokens: int) -> None:
    """Refuse a text in which the window of a routed layer would act."""
    if tokens > window:
        raise ValueError(
            f"attention: {tokens} tokens, the layers of this model have a window of {window}. They are routed where it "
            f"never acts: give texts of at most {window} tokens."
        )


def warn_beyond(context: int | None, tokens: int) -> None:
    """Say that a text is longer than a model is made for. It is read, as transformers reads it: some models stretch
    their positions then."""
    if context is not None and tokens > context:
        warnings.warn(  # without the length, which grows as a text is generated: Python tells the same warning once
            f"model: it is given a text of more tokens than it is made for (max_position_embeddings = {context}); what "
            "it says there, and what its indexers select, may be of no use.",
            stacklevel=2,
        )


def check_grows(past: Any, layer: Any) -> None:
    """Refuse a cache of transformers in which the keys of a layer have a fixed size."""
    if past.layers[layer].is_compileable:
        raise ValueError(
            f"past_key_values: {type(past).__name__} holds the keys of a layer in a tensor of fixed size, which no "
            "routed layer reads. Leave cache_implementation out, or give a DynamicCache or a GrowingCache "
            "(dsa.backbones.pretrained.cache), or use_cache=False."
        )


def rotation(hook: Hook, hidden: Tensor, offset: int = 0) -> Rotation:
    """Positions of a stretch of tokens, counted from the first of its text: only differences matter."""
    return Rotation(hidden.shape[1], hook.rope_base, hidden.device, offset=offset)


def kept_of(hook: Hook, past: Any, site: Site, row: int, key: Tensor, new: int) -> Cache:
    """The index keys of the tokens that transformers' own cache holds of a row, at one site.

    Args:
        past: the cache of transformers.
        row: the first of the rows that are read together.
        key: of all tokens so far; new: how many of them come now.

    Raises:
        ValueError: the cache holds what was not read through this model's routers, or was put in another order.
    """
    reads = hook.reads.setdefault(past, {})
    before = key.shape[2] - new
    read = reads.get((site.index, row), Read()) if before else Read()
    if read.tokens != before or (read.last is not None and not read.last.equal(key[:, :, before - 1])):
        raise ValueError(
            "past_key_values: its keys are not those that this model read last. It was filled by another model, put in "
            "another order (beam search) or cut (decoding that guesses tokens, as prompt lookup); give a new "
            "DynamicCache, or use_cache=False."
        )
    read.cache.length, read.tokens, read.last = before, key.shape[2], key[:, :, -1].clone()
    reads[site.index, row] = read
    return read.cache


def own_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """What the layer would run by itself."""
    config: Any = module.config
    if config._attn_implementation == PLAIN:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    eager: Any = sys.modules[type(module).__module__].eager_attention_forward
    return eager(module, query, key, value, attention_mask, **kwargs)


def recomputed(hook: Hook, module: nn.Module, call: Callable[..., Any], *given: Any) -> Any:
    """What transformers runs in place of a layer that is to be recomputed in the backward pass.

    By then the hook is at another pass or at none, so the layer is given back the one that it ran in.

    Args:
        module: the layer, told that it trains; within, it is as it is used.
        call: its forward pass, of what is given.
    """
    how, parts = hook.how, hook.parts

    def run(*given: Any) -> tuple[Any, list[Losses]]:
        training, module.training = module.training, False
        try:
            with hook.during(how, parts) as losses:
                return call(*given), losses
        finally:
            module.training = training

    out, losses = checkpoint(run, *given, use_reentrant=False)
    hook.losses.extend(losses)
    return out


def note(layer: Layer, module: Any, query: Tensor, key: Tensor, value: Tensor, kwargs: dict[str, Any]) -> None:
    """What the first call tells of a layer."""
    assert layer.hidden is not None
    layer.shapes = (layer.hidden.shape[-1], query.shape[1], key.shape[1], query.shape[-1])
    layer.values = value.shape[-1]
    layer.scale = kwargs.get("scaling")
    layer.window = kwargs.get("sliding_window") or chunk_of(module)
    layer.cap = kwargs.get("softcap")
    layer.sink = kwargs.get("s_aux") is not None
    layer.rank = 0 if layer.latent is None else layer.latent.shape[-1]


def chunk_of(module: Any) -> int | None:
    """Tokens of a chunk, if the queries of a layer see those of their own chunk alone (Llama 4): its mask says so, not
    its call."""
    kinds = getattr(module.config, "layer_types", None)
    return module.config.attention_chunk_size if kinds and kinds[module.layer_idx] == "chunked_attention" else None


def keep_hidden(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Before a layer that may be routed: keep its hidden states until the interface is called."""
    layer: Layer = getattr(module, LAYER)
    if layer.hook.how is not None:
        layer.hidden = named["hidden_states"] if "hidden_states" in named else arguments[0]
        layer.past = next((one for one in (*arguments, *named.values()) if isinstance(one, transformers().Cache)), None)


def keep_latent(projection: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Before queries are projected from their latent: keep it until the interface is called."""
    layer: Layer = getattr(projection, LAYER)
    if layer.hook.how is not None:
        layer.latent = arguments[0]
