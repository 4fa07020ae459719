"""Facts planted in a text and asked for at its end: RULER's forms and MRCR's, of any length, without a download."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from dsa.checks import at_least, null_or_positive, one_of, positive
from dsa.data.batch import IGNORE, Batch, Source
from dsa.data.forms import FORMS, Amounts, Form, Hidden
from dsa.data.hashing import digest, generator
from dsa.data.text import Corpus, Tokenizer, anywhere, check_length, tokenised

MIXTURE = "mixture"
LEARN = ("questions", "text")
DRAWS = 256  # of each form, from which its sizes in tokens are known
DIGITS = 18  # of a number of 64 bits
SPARE = 1 / 8  # of the planted tokens, so that no row is ever too short for those that are drawn for it
TRIES = 100  # draws of one row until none of its words stands in the text by chance


class Pieces(NamedTuple):
    """What a row is put together from, as tokens."""

    needles: list[np.ndarray]
    question: np.ndarray
    answer: np.ndarray


class Retrieval(Source):
    """A cut of a text with sentences planted in it, and a question at its end; the answer alone is asked (RULER, Hsieh
    et al. 2024, arXiv:2404.06654; MRCR, Vodrahalli et al. 2024, arXiv:2409.12640).

    A row ends with its answer, which is scored token by token with the right ones before it. Needles lie anywhere from
    the row's first token to `gap` before the question's last one; what they say stands nowhere else in the row.
    Training and evaluation have texts and keys of their own. Needles, question and answer are tokenised each by itself.

    Args:
        corpus: the text around.
        tokenizer: text to tokens.
        form: one of FORMS; mixture draws one for each row.
        distractors: keys, or chains of variables, that nobody asks for.
        values: values of the key that is asked for, of the form multi_value.
        hops: variables of a chain that take their value from the one before.
        digits: of a value.
        gap: least distance from a needle's last token to the first query [tokens]; None: 3 seq_len / 8.
        learn: training rows; questions: as those of the evaluation; text: cuts of the text with nothing planted, of
            which every token is asked, so that what was learned on text is asked for facts.
        cache_dir: folder for tokenised text; None: $XDG_CACHE_HOME/dsa or ~/.cache/dsa.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        form: str = "multi_key",
        distractors: int = 3,
        values: int = 4,
        hops: int = 2,
        digits: int = 7,
        gap: int | None = None,
        learn: str = "questions",
        cache_dir: str | None = None,
    ) -> None:
        self.form = one_of(form, (*FORMS, MIXTURE), "data.form")
        self.forms = list(FORMS.values()) if form == MIXTURE else [FORMS[form]]
        self.learn = one_of(learn, LEARN, "data.learn")
        self.gap = null_or_positive(gap, "data.gap", "null follows seq_len; a needle comes before its question")
        self.amounts = Amounts(
            at_least(distractors, 0, "data.distractors"),
            at_least(values, 2, "data.values", "one value is the form single or multi_key"),
            positive(hops, "data.hops"),
            at_least(digits, 4, "data.digits", "shorter numbers stand in any text"),
        )
        if digits > DIGITS:
            raise ValueError(f"data.digits = {digits}: give {DIGITS} at most, longer numbers are not drawn.")
        tokens = tokenised(corpus, tokenizer, cache_dir)
        self.tokenizer, self.train, self.validation = tokenizer, tokens.train, tokens.validation
        self.vocab_size = tokenizer.reach(tokens.largest)
        self.description = f"retrieval {form}, {corpus.description} {tokenizer.description}"
        identity = ("retrieval", tokens.content, tokenizer.settings(), form, tuple(self.amounts), gap)
        self.fingerprint = digest(*identity, *([learn] if learn == "text" else []))  # that questions teach goes unsaid
        draws = [hidden for form in self.forms for hidden in drawn(form, self.amounts)]
        self.widths = [tuple(map(len, (np.concatenate(p.needles), p.question, p.answer))) for p in self._pieces(draws)]
        # Of one token, for somebody who knows the sentences and the question but has not read the text.
        self.chance_loss = self.unigram_loss = sum(d.nats for d in draws) / sum(width[2] for width in self.widths)

    def least_gap(self, seq_len: int) -> int:
        """From the last needle to the answer, at the least [tokens]."""
        return max(1, 3 * seq_len // 8) if self.gap is None else self.gap

    def stop(self, seq_len: int, question: int, answer: int) -> int:
        """End of the part in which needles can lie, from the row's first token on."""
        return seq_len + 1 - answer - max(self.least_gap(seq_len), question)

    def check(self, seq_len: int) -> None:
        check_length(seq_len, self.description, self.train, self.validation)
        for planted, question, answer in self.widths:
            stop = self.stop(seq_len, question, answer)
            if planted * (1 + SPARE) > stop:
                gap = self.least_gap(seq_len)
                raise ValueError(
                    f"data.form = {self.form}: its sentences take {planted} tokens or more, and data.gap = {gap}, the "
                    f"question and its answer leave {max(0, stop)} of seq_len = {seq_len} for them and the text "
                    "around. Give a longer seq_len, a smaller data.gap, or fewer data.distractors, "
                    "data.values or data.hops."
                )

    def sample(self, rows: int, seq_len: int, rng: np.random.Generator) -> Batch:
        if self.learn == "text":
            return anywhere(self.train, rows, seq_len, rng)
        return self._rows(rows, seq_len, rng, self.train, evaluation=False)

    def evaluation(self, rows: int, seq_len: int) -> Batch:
        return self._rows(rows, seq_len, generator("evaluation"), self.validation, evaluation=True)

    def _rows(self, rows: int, seq_len: int, rng: np.random.Generator, part: np.ndarray, evaluation: bool) -> Batch:
        whole = np.empty((rows, seq_len + 1), np.int64)
        targets = np.full((rows, seq_len), IGNORE)
        depth = np.empty(rows, np.float32)
        found = [self._hidden(part, seq_len, evaluation, rng) for _ in range(rows)]
        pieces = self._pieces([hidden for hidden, _ in found])
        for row, ((hidden, start), (needles, question, answer)) in enumerate(zip(found, pieces, strict=True)):
            stop = self.stop(seq_len, len(question), len(answer))
            widths = [len(needle) for needle in needles]
            cuts = np.sort(rng.integers(stop - sum(widths) + 1, size=len(widths)))  # in the text, one for each needle
            text = part[start : start + seq_len + 1 - sum(widths) - len(question) - len(answer)]
            between = np.split(text, cuts)
            planted = [piece for pair in zip(between, needles, strict=False) for piece in pair]
            whole[row] = np.concatenate([*planted, between[-1], question, answer])
            targets[row, -len(answer) :] = answer
            first = hidden.needed[0]
            depth[row] = (cuts[first] + sum(widths[:first])) / max(1, stop - widths[first])
        return Batch(torch.from_numpy(whole[:, :-1].copy()), torch.from_numpy(targets), depth=torch.from_numpy(depth))

    def _hidden(self, part: np.ndarray, seq_len: int, evaluation: bool, rng: np.random.Generator) -> tuple[Hidden, int]:
        """What is hidden in a row, and where its text begins: a text that says none of it."""
        for _ in range(TRIES):
            start = int(rng.integers(len(part) - seq_len))
            hidden = self.forms[int(rng.integers(len(self.forms)))](self.amounts, evaluation, rng)
            text = self.tokenizer.decode(part[start : start + seq_len + 1].tolist())
            if not any(word in text for word in hidden.words):
                return hidden, start
        raise ValueError(
            f"data.digits = {self.amounts.digits}: in {TRIES} draws the text ({self.description}) held a key or value "
            "of the row by chance each time. Give more digits, fewer data.distractors or another text."
        )

    def _pieces(self, hidden: list[Hidden]) -> Iterator[Pieces]:
        """As tokens; all are encoded together, which tokenisers do fast."""
        texts = [text for each in hidden for text in (*each.needles, each.question, each.answer)]
        tokens = iter(self.tokenizer.encode(texts))
        for each in hidden:
            yield Pieces([next(tokens) for _ in each.needles], next(tokens), next(tokens))


def drawn(form: Form, amounts: Amounts) -> list[Hidden]:
    """The same rows' content each time, to measure.

    Raises:
        ValueError: there are not so many keys, in training or in evaluation.
    """
    form(amounts, True, generator("widths"))
    rng = generator("widths")
    return [form(amounts, False, rng) for _ in range(DRAWS)]
