"""What recall tasks of keys and values share: their tokens, and what lies amid the pairs that are asked for."""

from dsa.checks import at_least, null_or_positive
from dsa.data.task import Task


class KeyValue(Task):
    """Tokens: `keys`, then `values`, then `noise`, each a range of its own. A value is asked for.

    Args:
        decoys: pairs that nobody asks for; None follows the length.
        strays: values behind noise instead of a key; None follows the length.
        gap: least distance from a pair's value to its query [tokens]; None follows the length.
        keys, values, noise: tokens of each kind.
        more: settings of the task's own, for its fingerprint.
    """

    def __init__(
        self,
        decoys: int | None,
        strays: int | None,
        gap: int | None,
        keys: int,
        values: int,
        noise: int,
        **more: int | None,
    ) -> None:
        self.keys = at_least(keys, 1, "data.source.keys", "a pair needs a key")
        self.values = at_least(values, 2, "data.source.values", "a single value leaves nothing to recall")
        self.noise = at_least(noise, 1, "data.source.noise", "noise fills the row")
        self.gap = null_or_positive(gap, "data.gap", "null follows seq_len; a pair comes before its query")
        self.decoys, self.strays = (
            None if number is None else at_least(number, 0, f"data.{name}", "null follows seq_len")
            for name, number in (("decoys", decoys), ("strays", strays))
        )
        settings = {**more, "decoys": decoys, "strays": strays, "gap": gap}
        super().__init__(keys + values + noise, values, **settings, keys=keys, values=values, noise=noise)
