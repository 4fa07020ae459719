"""Which attention layers of a model become sites: found by what they call, reached by hooks."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from dsa.backbones.contracts import Site
from dsa.backbones.pretrained.hook import LAYER, Hook, Layer, release
from dsa.backbones.pretrained.interface import EAGER, FROM_LATENT, PLAIN, keep_hidden, keep_latent, register

NO_INTERFACE = (
    "model: {0} does not call transformers' attention interface, through which sparse attention is put into a model. "
    "Llama, Qwen, Mistral, Gemma 2 and 3, Phi-3, GPT-NeoX, GLM-4, OLMo 2, Granite, gpt-oss and most models since do."
)


def hooked(model: Any, router: Any, leave_dense: Sequence[int], seq_len: int | None) -> Hook:
    """Reach into a model: its attention layers, found by what they call, become sites or stay dense.

    Args:
        router: gives the router of a site.

    Raises:
        ValueError: it does not use the interface.
    """
    if not model._can_set_attn_implementation():
        raise ValueError(NO_INTERFACE.format(type(model).__name__))
    register()
    own = partial(model.set_attn_implementation, model.config._attn_implementation)
    config = model.config.get_text_config()
    hook = Hook(router, rope_base(config), context_of(config), own)
    model.set_attn_implementation(EAGER)
    try:
        find_layers(hook, model)
        number_sites(hook, leave_dense, seq_len, type(model).__name__)
    except BaseException:  # a model that is refused stays as it was
        release(model)
        raise
    if not any(layer.sink or layer.cap for layer in hook.layers):
        model.set_attn_implementation(PLAIN)
    return hook


def find_layers(hook: Hook, model: Any) -> None:
    """Put a hook into the attention layers of a model, found by what they call.

    Raises:
        ValueError: none calls the interface, or one sees later tokens.
    """
    numbered = [module for module in model.modules() if hasattr(module, "layer_idx")]
    found = [reach(hook, module) for module in numbered]  # attention, and in some models what is around it
    hook.handles.append(model.register_forward_pre_hook(hook.begin))
    hook.handles.append(model.register_forward_hook(hook.end, always_call=True))
    meet(model)
    for layer, reached in found:
        if layer.shapes:
            if not all(getattr(module, "is_causal", True) for module in reached):
                raise ValueError(
                    f"model: attention of {type(model).__name__} sees later tokens too, as an encoder's; give a causal "
                    "language model, or one whose config.json says is_decoder = true."
                )
            hook.layers.append(layer)
            hook.handles += reached.values()
            continue
        for module, handle in reached.items():
            handle.remove()
            delattr(module, LAYER)
    if not hook.layers:
        raise ValueError(NO_INTERFACE.format(type(model).__name__))


def reach(hook: Hook, module: nn.Module) -> tuple[Layer, dict[nn.Module, Any]]:
    """Put a hook before a module that transformers numbers, and before its projection of queries from a latent if it
    has one. Returns: what it may be a layer of, and the handle in each module."""
    layer = Layer(hook)
    reached = {module: module.register_forward_pre_hook(keep_hidden, with_kwargs=True)}
    projection = getattr(module, FROM_LATENT, None)
    if projection is not None:
        reached[projection] = projection.register_forward_pre_hook(keep_latent)
    for each in reached:
        setattr(each, LAYER, layer)
    return layer, reached


@torch.no_grad()
def meet(model: Any) -> None:
    """Run two tokens through a model; with a mask of its own, so that sizes alone are enough."""
    device = next(model.parameters()).device
    tokens, mask = torch.zeros(1, 2, dtype=torch.long, device=device), torch.zeros(1, 1, 2, 2, device=device)
    model(input_ids=tokens, attention_mask=mask, position_ids=torch.arange(2, device=device)[None], use_cache=False)


def number_sites(hook: Hook, leave_dense: Sequence[int], seq_len: int | None, name: str) -> None:
    """Which layers become sites: those without a window of their own that nobody leaves dense; where all have one,
    those in which it never acts.

    Raises:
        ValueError: none, or a layer that is not there.
    """
    beyond = [number for number in leave_dense if not 0 <= number < len(hook.layers)]
    if beyond:
        raise ValueError(f"model.leave_dense: no layer {beyond[0]}; {name} has layers 0 to {len(hook.layers) - 1}.")
    index, windows = 0, [layer.window for layer in hook.layers if layer.window is not None]
    alike = len(windows) == len(hook.layers)
    within = alike and seq_len is not None and seq_len <= min(windows)
    for number, layer in enumerate(hook.layers):
        if (layer.window is not None and not within) or number in leave_dense:
            continue
        width, heads, kv_heads, dim = layer.shapes
        if layer.values > dim:
            raise ValueError(
                f"model: values of {name} have {layer.values} dims, its keys {dim}: sparse attention takes values that "
                "are no wider than keys."
            )
        layer.site = Site(index, width, heads, kv_heads, dim, layer.scale, layer.cap, number, layer.rank)
        index += 1
    if not index and alike and not within:
        raise ValueError(
            f"model: every attention layer of {name} has a window of its own, which never acts on rows of at most "
            f"{min(windows)} tokens: give seq_len={min(windows)} or less."
        )
    if not index:
        raise ValueError(f"model: every attention layer of {name} has a window of its own or is left dense.")


def rope_base(config: Any) -> float:
    """Wavelength base of a model's rotary embedding; of full attention where it has two, 10000 where it has none."""
    found = getattr(config, "rope_parameters", None) or {}
    found = found.get("full_attention", found)
    return float(found.get("rope_theta", 10000.0))


def context_of(config: Any) -> int | None:
    """Tokens of the longest row that a model reads, by its text configuration; None: any."""
    return getattr(config, "max_position_embeddings", None)
