"""A causal language model of transformers as a backbone: its attention layers are the sites."""

import gc
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from dsa.backbones.attention import mean_losses
from dsa.backbones.backbone import Backbone
from dsa.backbones.cache import Cache
from dsa.backbones.contracts import Output, Pass, Size
from dsa.backbones.memory import Memory
from dsa.backbones.pretrained.interface import recomputed
from dsa.backbones.pretrained.reading import EXPERTS, config_of, loaded, weights_of
from dsa.backbones.pretrained.sites import context_of, hooked
from dsa.backbones.vocabulary import check_tokens
from dsa.pretrained.files import fingerprint
from dsa.pretrained.libraries import transformers


class Adopted(Backbone):
    """A causal language model of transformers that is in memory already.

    A layer whose attention has a window of its own stays as it is, unless all have one and no row is longer: then they
    are routed, and longer texts refused. Indexers see the hidden states that the layer projects, and the latent of its
    queries if it has one; they turn their queries and keys by positions with the model's own wavelength base.

    Args:
        model: the model; its forward pass goes through the routers that are attached here, whoever calls it.
        leave_dense: numbers of attention layers that stay dense, from 0.
        seq_len: tokens of the longest row; None: any.

    Raises:
        ValueError: it is none that sparse attention can be put into.
    """

    given: ClassVar[bool] = True

    def __init__(self, model: Any, leave_dense: Sequence[int] = (), seq_len: int | None = None) -> None:
        super().__init__()
        self.hf: nn.Module = model
        self.hook = hooked(model, self.router, leave_dense, seq_len)
        self.sites = tuple(layer.site for layer in self.hook.layers if layer.site is not None)
        self.vocab_size, self.context = int(model.config.get_text_config().vocab_size), self.hook.context

    def run(self, tokens: Int[Tensor, "batch time"], how: Pass) -> Output:
        check_tokens(tokens, self.vocab_size)
        cache, length = how.cache, how.offset + tokens.shape[1]
        if self.context is not None and length > self.context:
            raise ValueError(f"seq_len = {length}: the model reads at most {self.context} tokens.")
        given: dict[str, Any] = {"use_cache": False} if cache is None else past_of(cache, self.hf.config)
        chunked = how.targets is not None and self.memory.chunk is not None
        if chunked or not how.logits:
            given["logits_to_keep"] = 1
        with self.hook.passing(replace(how, cache=None)) as losses:
            if chunked:
                states = last_states(self.hf, input_ids=tokens, **given)[0]
                return self.answered(self.head, states, how, mean_losses(losses))
            logits = self.hf(input_ids=tokens, **given).logits
        if cache is not None:
            cache.length = length
        return Output(logits, mean_losses(losses))

    def train(self, mode: bool = True) -> "Adopted":
        """Routers learn; the model itself stays as it is used, without dropout."""
        super().train(mode)
        self.hf.eval()
        if self.memory.checkpoint:
            for layer in recomputable(self.hf):
                layer.training = mode  # of the layer alone: it is what transformers asks whether to recompute it
        return self

    @property
    def recomputes(self) -> bool:
        return bool(recomputable(self.hf))

    @property
    def chunks(self) -> bool:
        """Whether its logits are what its head makes of its last hidden states, without a scale or a cap."""
        where = next(self.hf.parameters()).device
        if where.type == "meta":
            return True  # sizes alone; the weights are asked when they are there
        model: Any = self.hf
        louder = model.get_decoder().register_forward_hook(magnified)  # small logits would not meet a cap
        try:
            with torch.no_grad():
                states, logits = last_states(model, input_ids=torch.arange(8, device=where)[None])  # padding may be 0
                return bool((self.head(states) == logits).all())
        finally:
            louder.remove()

    @property
    def head(self) -> nn.Module:
        """From last hidden states to logits."""
        model: Any = self.hf
        found: nn.Module = model.get_output_embeddings()
        return found

    @property
    def layer_list(self) -> list[nn.Module]:
        return recomputable(self.hf)

    @property
    def called(self) -> str:
        return type(self.hf).__name__

    def save_memory(self, memory: Memory) -> None:
        super().save_memory(memory)
        for layer in recomputable(self.hf):
            layer.gradient_checkpointing = memory.checkpoint  # type: ignore[assignment]
            layer._gradient_checkpointing_func = partial(recomputed, self.hook, layer)  # type: ignore[assignment]


class Pretrained(Adopted):
    """Any causal language model that calls its attention through transformers' interface, by its files.

    Args:
        vocab_size: one past the largest token of the data; the model's own may be larger.
        path: a folder, a GGUF file, a name on the hub, or that of a model that `dsa fetch` fetched.
        leave_dense: numbers of attention layers that stay dense, from 0.
        seq_len: tokens of the longest row; None: any.
        seed: of nothing: its weights are there.

    Raises:
        ValueError: it cannot be read, or is none that sparse attention can be put into.
    """

    def __init__(
        self, vocab_size: int, path: str, leave_dense: Sequence[int] = (), seq_len: int | None = None, seed: int = 0
    ) -> None:
        if torch.get_default_device().type == "meta":  # sizes alone
            kind = transformers().AutoModelForCausalLM
            model = kind.from_config(config_of(path), dtype=torch.float32, **EXPERTS)
        else:
            gc.collect()  # hooks and trainers lead back to their model: earlier ones would stay, hundreds of MB each
            model = loaded(path)
        super().__init__(model.eval(), leave_dense, seq_len)
        if vocab_size > self.vocab_size:
            raise ValueError(
                f"data: its tokens go up to {vocab_size - 1}, the model {path} knows {self.vocab_size - 1} and below. "
                "Give data=stdlib_model, text_model or retrieval_model, which are read by the model's own tokenizer; "
                "if it is, either its tokenizer.json is another model's, or the text holds a token that was added to "
                "it and that the model does not know: take that out."
            )

    @classmethod
    def identity(cls, node: Mapping[str, Any]) -> dict[str, Any]:
        """Its files, by what they hold and not by where they lie; how long rows are is said beside it."""
        kept = {name: value for name, value in node.items() if name not in ("path", "seq_len")}
        return kept | {"files": fingerprint(node["path"])}

    @classmethod
    def named_by(cls, node: Mapping[str, Any]) -> str | None:
        """The name of its folder, of its file without ending, or on the hub without the owner's; `~` behind it where
        layers are left dense."""
        if not isinstance(node.get("path"), str):
            return None
        place = Path(os.path.abspath(Path(node["path"]).expanduser()))
        return (place.stem if place.suffix == ".gguf" else place.name) + ("~" if node.get("leave_dense") else "")

    @classmethod
    def size(cls, node: Mapping[str, Any]) -> Size:
        """By its config.json, and its weights by counting them.

        Raises:
            ValueError: it does not say.
        """
        config = config_of(node["path"])
        own = config.get_text_config()
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
        layers, width, heads, vocab = (getattr(own, name, None) for name in names)
        if not (layers and width and heads and vocab):
            raise ValueError(f"model.path = {node['path']}: its config.json does not say {', '.join(names[:-1])} and "
                             f"{names[-1]} of the model.")  # fmt: skip
        ff = getattr(own, "intermediate_size", None) or 4 * width
        counted = weights_of(node["path"], config.to_json_string())
        return Size(layers, width, ff, heads, vocab, *counted, context=context_of(own))


def past_of(cache: Cache, config: Any) -> dict[str, Any]:
    """What a model is told of the tokens before, whose keys and values transformers keeps."""
    from dsa.backbones.pretrained.cache import GrowingCache  # late: it stands on transformers

    if cache.past is None:
        cache.past = GrowingCache(config, cache.room)
    return {"use_cache": True, "past_key_values": cache.past}


def magnified(_: nn.Module, given: Any, out: Any) -> Any:
    """A forward hook: last hidden states a thousand times as large."""
    out.last_hidden_state = out.last_hidden_state * 1000
    return out


def last_states(model: Any, **given: Any) -> tuple[Tensor, Tensor]:
    """The last hidden states of a pass, which its head reads, and its logits."""
    seen: list[Tensor] = []
    handle = model.get_decoder().register_forward_hook(lambda *called: seen.append(called[2].last_hidden_state))
    try:
        logits = model(**given).logits
    finally:
        handle.remove()
    return seen[0], logits


def recomputable(model: nn.Module) -> list[nn.Module]:
    """The layers that transformers can recompute in the backward pass."""
    transformers()
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
