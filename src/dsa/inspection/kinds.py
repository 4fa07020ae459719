"""What kind of thing a token is: letters, digits, ... in a text; keys, values and noise in a recall task."""

from functools import singledispatch
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from dsa.data import Induction, Retrieval, TextSource
from dsa.data.key_value import KeyValue


class Kinds(NamedTuple):
    """Names, and for each token of the vocabulary the index of its name."""

    names: list[str]
    of: Int[Tensor, "vocab"]

    @property
    def row_names(self) -> list[str]:
        """Names in a row: its first token is a kind of its own, because attention often rests there."""
        return ["first token", *self.names]

    def row(self, tokens: Int[Tensor, "time"]) -> Int[Tensor, "time"]:
        """For each token of a row the index of its name among `row_names`."""
        kind = self.of[tokens] + 1
        kind[0] = 0
        return kind


TEXT = ["letters", "digits", "space", "newline", "punctuation", "other"]


@singledispatch
def kinds(source: object) -> Kinds:
    """The kinds of a source's tokens; a source that nothing is known about has one."""
    return Kinds(["tokens"], torch.zeros(source.vocab_size, dtype=torch.long))  # type: ignore[attr-defined]


@kinds.register
def _(source: KeyValue) -> Kinds:
    sizes = torch.tensor([source.keys, source.values, source.noise])
    return Kinds(["keys", "values", "noise"], torch.arange(3).repeat_interleave(sizes))


@kinds.register
def _(source: Induction) -> Kinds:
    sizes = torch.tensor([source.prefixes, source.fillers])
    return Kinds(["prefixes", "fillers"], torch.arange(2).repeat_interleave(sizes))


@kinds.register(TextSource)
@kinds.register(Retrieval)
def _(source: TextSource | Retrieval) -> Kinds:
    texts = [source.tokenizer.decode([token]) for token in range(source.vocab_size)]
    return Kinds(TEXT, torch.tensor([TEXT.index(kind_of(text)) for text in texts]))


def kind_of(text: str) -> str:
    """The kind of a token that stands for `text`: the first that fits; part of a character is other."""
    if "\n" in text:
        return "newline"
    if not text or "�" in text or "\0" in text:
        return "other"
    if text.isspace():
        return "space"
    if any(character.isalpha() for character in text):
        return "letters"
    return "digits" if any(character.isdigit() for character in text) else "punctuation"
