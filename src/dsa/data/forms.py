"""What a retrieval row hides in its text and asks for: RULER's forms and MRCR's, as sentences."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ADJECTIVES = (
    "amber ancient bitter blue brave brisk broad calm clever copper crimson dusty eager early fierce gentle golden "
    "hollow humble idle icy jolly keen late little lucky mellow narrow noisy olive pale quiet"
).split()
NOUNS = (
    "anchor badger basket beacon bridge button candle canyon castle cedar comet falcon garden glacier hammer harbor "
    "island kettle lantern meadow mirror orchard otter pebble pigeon river saddle shadow teapot tunnel violin willow"
).split()
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAME = 5  # letters of a variable's name, of which half are held out
HELD_OUT = 4  # every so manieth key is for evaluation alone


class Hidden(NamedTuple):
    """What one row is made of, beside the text that it is hidden in.

    Args:
        needles: the sentences to plant, in their order.
        needed: indices of those that the answer is taken from.
        question: the row's end, up to the answer.
        answer: what is asked for, token by token.
        words: keys, names and values; none of them may stand in the text around.
        nats: ln of how many answers there are to somebody who has read the question alone.
    """

    needles: list[str]
    needed: list[int]
    question: str
    answer: str
    words: list[str]
    nats: float


class Amounts(NamedTuple):
    """How much a row holds.

    Args:
        distractors: keys, or chains of variables, that nobody asks for.
        values: values of the key that is asked for, where it has several.
        hops: variables of a chain that take their value from the one before.
        digits: of a value.
    """

    distractors: int
    values: int
    hops: int
    digits: int

    @property
    def nats(self) -> float:
        """Of one value: there are 9 * 10^(digits - 1)."""
        return math.log(9) + (self.digits - 1) * math.log(10)


def said(key: str, value: str) -> str:
    """The sentence that is planted."""
    return f"\nThe special magic number for {key} is: {value}.\n"


@functools.cache
def every_key(evaluation: bool) -> list[str]:
    """All keys of a part; those of evaluation are never trained on, though their words are."""
    return [
        f"{adjective} {noun}"
        for i, adjective in enumerate(ADJECTIVES)
        for j, noun in enumerate(NOUNS)
        if ((i + j) % HELD_OUT == 0) == evaluation
    ]


def keys(count: int, evaluation: bool, rng: np.random.Generator) -> list[str]:
    """Different keys.

    Raises:
        ValueError: there are not so many.
    """
    allowed = every_key(evaluation)
    if count > len(allowed):
        most = min(len(every_key(part)) for part in (False, True)) - 1
        raise ValueError(f"data.distractors = {count - 1}: give {most} at most, as many other keys as there are.")
    return [allowed[i] for i in rng.choice(len(allowed), count, replace=False)]


def numbers(count: int, digits: int, rng: np.random.Generator) -> list[str]:
    """Different numbers of so many digits."""
    low = 10 ** (digits - 1)
    out: dict[str, None] = {}
    while len(out) < count:
        out[str(low + int(rng.integers(9 * low)))] = None
    return list(out)


def names(count: int, evaluation: bool, rng: np.random.Generator) -> list[str]:
    """Different names of variables; the places of an evaluation name's letters have an even sum, else an odd one."""
    out: dict[str, None] = {}
    while len(out) < count:
        drawn = rng.integers(len(LETTERS), size=NAME)
        if (drawn.sum() % 2 == 0) == evaluation:
            out["".join(LETTERS[i] for i in drawn)] = None
    return list(out)


def single(amounts: Amounts, evaluation: bool, rng: np.random.Generator) -> Hidden:
    """One key and its value (RULER's single-key needle)."""
    return multi_key(amounts._replace(distractors=0), evaluation, rng)


def multi_key(amounts: Amounts, evaluation: bool, rng: np.random.Generator) -> Hidden:
    """Several keys, one asked for (RULER's multi-key needle)."""
    count = 1 + amounts.distractors
    wanted, given = keys(count, evaluation, rng), numbers(count, amounts.digits, rng)
    asked = int(rng.integers(count))
    question = f"\nThe special magic number for {wanted[asked]} in the text is:"
    needles = [said(key, value) for key, value in zip(wanted, given, strict=True)]
    return Hidden(needles, [asked], question, f" {given[asked]}", wanted + given, amounts.nats)


def multi_value(amounts: Amounts, evaluation: bool, rng: np.random.Generator) -> Hidden:
    """One key with several values, all asked for, amid other keys (RULER's multi-value needle)."""
    count = amounts.values + amounts.distractors
    others, given = keys(1 + amounts.distractors, evaluation, rng), numbers(count, amounts.digits, rng)
    own = sorted(rng.permutation(count)[: amounts.values].tolist())
    spare = iter(others[1:])
    needles = [said(others[0] if i in own else next(spare), value) for i, value in enumerate(given)]
    question = f"\nThe special magic numbers for {others[0]} in the text, in order, are:"
    answer = f" {', '.join(given[i] for i in own)}"
    return Hidden(needles, own, question, answer, others + given, amounts.values * amounts.nats)


def variable(amounts: Amounts, evaluation: bool, rng: np.random.Generator) -> Hidden:
    """Chains of variables that take each other's value; those of one chain are asked for (RULER's tracking)."""
    chains, length = 1 + amounts.distractors, 1 + amounts.hops
    called, given = names(chains * length, evaluation, rng), numbers(chains, amounts.digits, rng)
    of = [called[i * length : (i + 1) * length] for i in range(chains)]
    turns = rng.permutation(np.repeat(np.arange(chains), length)).tolist()
    needles, reached = [], [0] * chains
    for chain in turns:
        place = reached[chain]
        needles.append(f"\nVAR {of[chain][place]} = {f'VAR {of[chain][place - 1]}' if place else given[chain]}.\n")
        reached[chain] += 1
    needed = [i for i, chain in enumerate(turns) if chain == 0]
    question = f"\nThe variables that hold {given[0]}, in order, are:"
    nats = length * (NAME * math.log(len(LETTERS)) - math.log(2))
    return Hidden(needles, needed, question, f" {', '.join(of[0])}", called + given, nats)


def two_needle(amounts: Amounts, evaluation: bool, rng: np.random.Generator) -> Hidden:
    """One key with two values, the first or the second asked for, amid other keys (MRCR's form)."""
    hidden = multi_value(amounts._replace(values=2), evaluation, rng)
    asked = int(rng.integers(2))
    place, key = hidden.needed[asked], hidden.words[0]
    value = hidden.words[1 + amounts.distractors + place]
    question = f"\nThe {('first', 'second')[asked]} special magic number for {key} in the text is:"
    return hidden._replace(needed=[place], question=question, answer=f" {value}", nats=amounts.nats)


Form = Callable[[Amounts, bool, np.random.Generator], Hidden]
FORMS: dict[str, Form] = {form.__name__: form for form in (single, multi_key, multi_value, variable, two_needle)}
