"""Text from a model: the most probable tokens, or drawn ones, with a cache."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsa import ops
from dsa.backbones.cache import Cache
from dsa.backbones.contracts import Pass
from dsa.backbones.vocabulary import check_tokens
from dsa.checks import positive

if TYPE_CHECKING:  # it stands on this file
    from dsa.backbones.backbone import Backbone


@torch.no_grad()
def generate(
    model: "Backbone",
    tokens: Int[Tensor, "batch time"],
    new: int,
    *,
    chunk: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    how: Pass | None = None,
    attention_mask: Bool[Tensor, "batch time"] | Int[Tensor, "batch time"] | None = None,
) -> Int[Tensor, "batch longer"]:
    """The tokens with `new` more behind them; the keys of each are computed once.

    Args:
        tokens: of texts of one length, or padded to one on either side.
        chunk: tokens that are read at a time, so that a long text needs less memory at once; None: all.
        temperature: by which the logits are divided before a token is drawn; 0 takes the most probable one.
        seed: of the draws.
        how: the passes are; None: sparse. Its cache, if it has one, holds what comes before `tokens`.
        attention_mask: 0 where a token is padding, which stays as it is: a text goes on in the last `new` columns as
            it does alone (texts of one length at once, one length after the other). None: nowhere.

    Raises:
        ValueError: a number is out of its range, a token is none of the model's, there is none to go on from, or the
            mask does not pad the texts at their ends, or a cache stands beside it.
    """
    positive(new, "new")
    if not temperature >= 0:
        raise ValueError(f"temperature = {temperature}: give 0 or more.")
    if chunk is not None:
        positive(chunk, "chunk")
    if not tokens.shape[1]:
        raise ValueError("tokens: there is none; give at least one to go on from.")
    if attention_mask is not None:
        if how is not None and how.cache is not None:
            raise ValueError("attention_mask: given beside a cache, whose texts are of one length; give one of them.")
        longer = tokens.new_zeros(len(tokens), new)
        for rows, texts in unpadded(tokens, attention_mask):
            ended = generate(model, texts, new, chunk=chunk, temperature=temperature, seed=seed, how=how)
            longer[rows] = ended[:, texts.shape[1] :]
        return torch.cat([tokens, longer], 1)
    check_tokens(tokens, model.vocab_size, wait=True)
    how = Pass() if how is None else how
    if how.cache is None:
        how = replace(how, cache=Cache(room=tokens.shape[1] + new))
    before = how.offset + tokens.shape[1]
    if model.context is not None and before + new - 1 > model.context:
        raise ValueError(
            f"new = {new}: {before} tokens come before, and the model reads at most {model.context}: give "
            f"{max(0, model.context + 1 - before)} at most."
        )
    how, generator = replace(how, logits=False), torch.Generator(tokens.device).manual_seed(seed)
    for part in tokens.split(chunk or tokens.shape[1], 1):
        logits = model.run(part, how).logits
    found = [tokens]
    for _ in range(new):
        if len(found) > 1:
            logits = model.run(found[-1], how).logits
        found.append(chosen(logits[:, -1], temperature, generator))
    ops.settle()
    return torch.cat(found, 1)


def unpadded(
    tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"] | Int[Tensor, "batch time"]
) -> Iterator[tuple[Int[Tensor, " rows"], Int[Tensor, "rows length"]]]:
    """The texts of each length, and which rows they are.

    Raises:
        ValueError: the mask has another shape, or a row of it is all padding or has some between its tokens.
    """
    if mask.shape != tokens.shape:
        raise ValueError(
            f"attention_mask is of shape {tuple(mask.shape)}, the tokens are of {tuple(tokens.shape)}: give one entry "
            "a token."
        )
    real = mask.bool()
    lengths, first = real.sum(1), real.int().argmax(1)
    column = torch.arange(tokens.shape[1], device=tokens.device)
    whole = (column >= first[:, None]) & (column < (first + lengths)[:, None])
    if bad := ((whole != real).any(1) | (lengths == 0)).nonzero()[:, 0].tolist():
        raise ValueError(
            f"attention_mask: row {bad[0]} is all padding or has some between its tokens; pad texts at their ends."
        )
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        yield rows, tokens[rows][real[rows]].view(len(rows), length)


def chosen(
    logits: Float[Tensor, "batch vocab"], temperature: float, generator: torch.Generator
) -> Int[Tensor, "batch 1"]:
    """A token for each row."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits.float() / temperature).softmax(-1), 1, generator=generator)
