"""A run that is interrupted in joint training, and the same command again."""

import pytest

from dsa import compose, train
from dsa.artifacts.results import RunResult
from dsa.training.joint import JointTraining


def cut_and_resumed(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> RunResult:
    """The result of a run whose fourth joint step was interrupted once."""
    begin, killed = JointTraining.on_train_batch_start, []

    def dying(self, batch, batch_idx):
        if batch_idx == 3 and self.stage.name == "sparse" and not killed:
            killed.append(batch_idx)
            raise KeyboardInterrupt
        begin(self, batch, batch_idx)

    monkeypatch.setattr(JointTraining, "on_train_batch_start", dying)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(compose(overrides))
    result = train(compose(overrides))
    assert killed
    return result
