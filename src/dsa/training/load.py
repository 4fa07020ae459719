"""Trained models from run folders."""

from collections.abc import Sequence
from pathlib import Path

from dsa.artifacts.files import CONFIG
from dsa.artifacts.results import RunResult, of_another_schema, read_result
from dsa.artifacts.store import RECORD, Store, read_json
from dsa.backbones import Backbone
from dsa.config import read_config
from dsa.graph import graph_of
from dsa.judging.calibrate import restore
from dsa.judging.models import Models
from dsa.spec import Spec, spec_from


def load_run(path: str | Path, allow_targets: Sequence[str] = ()) -> Backbone:
    """The model of a finished run with its trained weights, in evaluation mode.

    Args:
        path: of the run folder, where the command that made it put it: its artifacts lie beside its study.
        allow_targets: packages of your own whose classes the run's configuration may name.

    Raises:
        FileNotFoundError: the folder holds no finished run, or its artifacts are gone.
        ValueError: an older version wrote it.
    """
    folder = Path(path)
    result = finished(folder)
    spec = load_spec(folder, allow_targets)
    final = graph_of(spec, result.corpus).final
    store = Store(spec.outputs, "keep")
    place = store.folder(final.needs[0])
    record, judgement = read_json(place / RECORD), store.judgement(final)
    if record is None or judgement is None:
        raise FileNotFoundError(f"{folder}: {place} or its judgement is not there, on which it stands; run it again.")
    model = Models(store, record["vocab_size"]).of(spec, final)
    restore(model, judgement.get("constants", {}))
    return model.eval()


def load_spec(folder: Path, allow_targets: Sequence[str] = ()) -> Spec:
    """The spec of a run folder, with its outputs where the folder lies now."""
    here = {"allow_targets": list(allow_targets), "output_dir": str(folder.resolve().parents[1])}
    return spec_from(read_config(folder / CONFIG) | here)


def finished(path: str | Path) -> RunResult:
    """The result of a run folder.

    Raises:
        FileNotFoundError: there is no finished run.
        ValueError: an older version wrote it.
    """
    folder = Path(path)
    result = read_result(folder)
    if result is not None and result.status == "finished":
        return result
    if (older := of_another_schema(folder)) is not None:
        raise ValueError(f"{older}.")
    begun = "no result yet, the run is not finished" if (folder / CONFIG).exists() else "no result"
    nothing = begun if folder.is_dir() else "there is no such folder"
    state = nothing if result is None else f"status {result.status}"
    why = "" if result is None or not result.error else f" ({result.error['reason'].rstrip('.')})"
    raise FileNotFoundError(f"{folder}: {state}{why}; give the folder of a finished run.")
