"""What a run leaves behind: result.json, written last and in one rename."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dsa.artifacts.atomic import write_json
from dsa.artifacts.files import RESULT
from dsa.artifacts.finite import finite
from dsa.artifacts.store import read_json
from dsa.checks import folder_name

SCHEMA = 2
WRITERS = {1: "dsa 0.1"}  # of other schemas


@dataclass
class RunResult:
    """The numbers of one run; losses in nats per token. Anything that was not measured is None.

    `status` is finished or failed; only finished results are ever reused. `artifacts` names what the run is made of:
    base, indexers, joint, control. `base_training`: the steps of the base and, where it was trained to a criterion, the
    accuracy that ends it (until), the step that reached it (solved_at; None: never), and the accuracy in the end.
    `certificate`: of a pretrained model, see dsa.judging.certificate.
    Exact match (where rows have an answer of their own): share of rows of which every asked token is right;
    `exact_match_by_depth`: the same by place of the answer, the first part the farthest from the question, for each of
    val, dense_val, base_val, swap_val, swap_window and swap_sink_window that was judged.
    `samples`: of each evaluation row of a text, in their order, for each of the same its mean loss (`swap_val_loss`);
    where rows have an answer of their own that of its asked tokens, exact match (0 or 1), and `depth` of the answer (0
    to 1).
    `swap_sink_window_...`: of a pretrained model, its first keys and the nearest at the run's budget.
    """

    run_id: str
    status: str
    study: str
    condition: dict[str, str]
    model: str
    data: str
    recipe: str
    seq_len: int
    seed: int
    indexer_seed: int = 0
    folder: str = ""
    schema: int = SCHEMA
    artifacts: dict[str, str | None] = field(default_factory=dict)
    error: dict[str, str] | None = None
    val_loss: float | None = None
    val_perplexity: float | None = None
    val_accuracy: float | None = None
    val_exact_match: float | None = None
    recall_slice_loss: float | None = None
    chance_loss: float | None = None
    unigram_loss: float | None = None
    dense_val_loss: float | None = None
    dense_val_perplexity: float | None = None
    dense_val_accuracy: float | None = None
    dense_val_exact_match: float | None = None
    delta_loss: float | None = None
    base_val_loss: float | None = None
    base_val_accuracy: float | None = None
    base_val_exact_match: float | None = None
    base_training: dict[str, Any] = field(default_factory=dict)
    swap_val_loss: float | None = None
    swap_val_accuracy: float | None = None
    swap_val_exact_match: float | None = None
    swap_window_loss: float | None = None
    swap_window_accuracy: float | None = None
    swap_window_exact_match: float | None = None
    swap_sink_window_loss: float | None = None
    swap_sink_window_accuracy: float | None = None
    swap_sink_window_exact_match: float | None = None
    exact_match_by_depth: dict[str, dict[str, float]] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    params: dict[str, float] = field(default_factory=dict)
    density: float | None = None
    mean_k: float | None = None
    selection: dict[str, Any] = field(default_factory=dict)
    swap_selection: dict[str, Any] = field(default_factory=dict)
    certificate: dict[str, Any] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
    time: dict[str, float | bool | None] = field(default_factory=dict)
    memory: dict[str, float | None] = field(default_factory=dict)
    stability: dict[str, float | None] = field(default_factory=dict)
    speed_is_real: bool = False
    dtype: str = ""
    warnings: list[str] = field(default_factory=list)
    config_hash: str = ""
    corpus: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write result.json in one rename."""
        write_json(folder / RESULT, finite(asdict(self)), strict=True)


def told_apart(schema: Any) -> str:
    """Who reads results of another schema."""
    return f"schema {schema}; {WRITERS.get(schema, 'another version of dsa')} wrote it and reads it"


def of_another_schema(folder: Path) -> str | None:
    """Why the result in a run folder cannot be read: another version wrote it; None if that is not so."""
    values = read_json(folder / RESULT)
    if values is None or values.get("schema") == SCHEMA:
        return None
    return f"{folder}: its result has {told_apart(values.get('schema'))}"


def read_result(folder: Path) -> RunResult | None:
    """The result in a run folder; None if there is none, or it was written by another schema.

    Raises:
        ValueError: it names artifacts outside the output folder.
    """
    values = read_json(folder / RESULT)
    if values is None or values.get("schema") != SCHEMA:
        return None
    for kind, name in values.get("artifacts", {}).items():
        if name is not None:
            folder_name(name, f"{folder / RESULT}: artifacts.{kind}")
    known = {f.name for f in fields(RunResult)}
    return RunResult(**{name: value for name, value in values.items() if name in known} | {"folder": str(folder)})
