"""Which tokens of a text only a long memory predicts: those that repeat something far back."""

import numpy as np
from jaxtyping import Bool, Int

from dsa.checks import at_least


class RecallSlice:
    """Marks targets that complete an n-gram as it was completed before, in the same row but beyond the window.

    Target w[j] is marked if there is an i < j with w[i-n..i] = w[j-n..j] (the n tokens before it, and itself),
    and the largest such i has j - i > window: the token to recall is not among the `window` nearest keys of the
    query at j - 1 (itself included).

    Args:
        ngram: n [tokens].
        window: how far back is near [tokens].
    """

    def __init__(self, ngram: int, window: int) -> None:
        self.ngram = at_least(ngram, 1, "data.source.recall_slice.ngram", "an n-gram has a token")
        self.window = at_least(window, 1, "data.source.recall_slice.window", "the query itself is in the window")

    def __call__(self, rows: Int[np.ndarray, "row token"]) -> Bool[np.ndarray, "row token-1"]:
        """The mask of rows[:, 1:], the targets."""
        marked = np.zeros(rows[:, 1:].shape, bool)
        length = rows.shape[1] - self.ngram
        if length < 1:
            return marked
        row, start = np.divmod(np.arange(rows.shape[0] * length), length)
        phrase = row
        for shift in range(self.ngram + 1):  # numbers the phrases of a row: equal number = equal tokens, exactly
            token = rows[row, start + shift].astype(np.int64)
            phrase = np.unique(phrase * (token.max() + 1) + token, return_inverse=True)[1]
        order = np.argsort(phrase, kind="stable")  # by phrase (hence by row), then by place
        again = phrase[order][1:] == phrase[order][:-1]
        far = start[order][1:] - start[order][:-1] > self.window
        hits = order[1:][again & far]
        marked[row[hits], start[hits] + self.ngram - 1] = True
        return marked
