"""A model of transformers with the sparse attention of a finished run; and indexers as files that can be given away."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dsa.artifacts.atomic import replacing_folder
from dsa.artifacts.results import RunResult
from dsa.artifacts.store import RECORD, Named, Store, read_json
from dsa.backbones import Backbone
from dsa.backbones.pretrained import Adopted
from dsa.backbones.pretrained.hook import release
from dsa.build import attach_routers, build_indexers
from dsa.judging.calibrate import restore
from dsa.judging.checkpoints import read_weights
from dsa.judging.models import PATTERNS, fit_indexers, fit_patterns
from dsa.pretrained.files import fingerprint
from dsa.spec import Spec, spec_from
from dsa.training.load import finished, load_spec

SETTINGS, WEIGHTS, SCHEMA = "indexers.json", "indexers.safetensors", 1
ROUTERS, BACKBONE = "dsa_routers", "dsa_backbone"


class Saved(NamedTuple):
    """Indexers and the composition that they serve.

    Args:
        weights: of all indexers, by number and name.
        constants: that calibration found.
        fits: the model that they were trained on, by a fingerprint of its files.
    """

    spec: Spec
    weights: dict[str, Tensor]
    constants: dict[str, float]
    fits: dict[str, Any]


def attach(model: Any, source: str | Path, allow_targets: Sequence[str] = ()) -> Any:
    """Give a transformers model the sparse attention of a run: its indexers, pattern, selector and precision.

    Args:
        model: a causal language model, as `AutoModelForCausalLM.from_pretrained` gives it; it is changed in place.
        source: the folder of a finished run on this model, or one that `save_indexers` wrote.
        allow_targets: packages of your own whose classes the run names.

    Returns: the same model. It reads texts padded on either side, and generates with transformers' growing cache.

    A warning says if the folder that the model was read from is not the model on which the indexers were trained: they
    then fit by their shapes alone.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: it is no model, or the indexers do not fit it.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"attach: give a model of transformers, as from_pretrained returns it, not {model!r}.")
    if hasattr(model, "get_base_model"):
        raise ValueError(
            f"attach: {type(model).__name__} wraps a model that its adapters call past it; attach to "
            "model.get_base_model(), or before it is wrapped."
        )
    saved = read(Path(source), allow_targets)
    detach(model)
    adopted = Adopted(model, saved.spec.model.node.get("leave_dense", ()), saved.spec.seq_len)
    try:
        put(saved, adopted, Path(source))
    except BaseException:  # a model that is refused is left dense
        release(model)
        raise
    warn_of_another(model, saved.fits, Path(source))
    adopted.routers.to(next(model.parameters()).device).eval()
    setattr(model, ROUTERS, InFloat32(adopted.routers))
    object.__setattr__(model, BACKBONE, adopted)  # no part of it: it holds the model
    return model


class InFloat32(nn.ModuleList):
    """Routers that move with the model that they are attached to, and keep their numbers where it is cast."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(lambda x: x.to(fn(x).device), recurse)


def put(saved: Saved, adopted: Adopted, where: Path) -> None:
    """Give a backbone the indexers and the composition that were saved.

    Raises:
        ValueError: they do not fit it.
    """
    indexers = None
    if saved.spec.uses_indexer:
        indexers = build_indexers(saved.spec, adopted)
        check_fit(saved.weights, len(indexers), where)
        fit_indexers(indexers, saved.weights, where)
    attach_routers(saved.spec, adopted, indexers)
    if saved.spec.trains_pattern:
        fit_patterns(adopted, saved.weights, where)
    restore(adopted, saved.constants)


def attached(model: Any) -> Backbone:
    """What `attach` made of a model: a backbone, for passes that observe, replay or look at indices.

    Raises:
        ValueError: nothing is attached to it.
    """
    backbone: Backbone | None = getattr(model, BACKBONE, None)
    if backbone is None:
        raise ValueError("attached: this model has no sparse attention; dsa.attach(model, run) gives it one.")
    return backbone


def warn_of_another(model: nn.Module, fits: dict[str, Any], where: Path) -> None:
    """Say if the files that a model was read from are not those that the indexers were trained on."""
    folder = Path(str(getattr(model, "name_or_path", "")))
    if not (folder / "config.json").is_file():  # a name on the hub, or made in memory: there are no files to compare
        return
    if fingerprint(str(folder)) != fits.get("files"):
        warnings.warn(
            f"{where}: these indexers were trained on another model than {folder}. They fit by their shapes alone: "
            "judge what they select before it is used.",
            stacklevel=3,
        )


def detach(model: Any) -> Any:
    """Take a model back to dense attention, in the implementation that it had. Returns: the same model."""
    if hasattr(model, ROUTERS):
        attached(model).attach(())  # whoever kept it has a dense one
        delattr(model, ROUTERS)
        object.__delattr__(model, BACKBONE)
    release(model)
    return model


def save_indexers(run: str | Path | RunResult, folder: str | Path) -> Path:
    """Write a run's indexers and its composition into a folder: safetensors, and json that names the model they fit.

    Args:
        run: a finished run on a pretrained model, or its folder.
        folder: is made; nothing may be there.

    Returns: the folder.

    Raises:
        FileExistsError: the folder is there.
        ValueError: it is no run, or has no indexers of a pretrained model.
    """
    if not isinstance(run, str | Path | RunResult):
        raise ValueError(f"save_indexers: give a finished run or its folder, not {type(run).__name__}.")
    source = Path(run.folder if isinstance(run, RunResult) else run)
    target = Path(folder)
    if target.exists():
        raise FileExistsError(f"{target} is there already; give another folder.")
    saved = of_run(source, ())
    if not saved.spec.uses_indexer:
        raise ValueError(f"{source}: the run has no indexers, its selector ranks keys without one.")
    content = {name: value for name, value in saved.spec.content.items() if name not in ("output_dir", "cache_dir")}
    told = {"schema": SCHEMA, "fits": saved.fits, "constants": saved.constants, "config": content}
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(target) as temporary:
        save_file({name: weight.contiguous() for name, weight in saved.weights.items()}, temporary / WEIGHTS)
        (temporary / SETTINGS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return target


def read(folder: Path, allow_targets: Sequence[str]) -> Saved:
    """What a folder holds, be it a run's or written by `save_indexers`.

    Raises:
        ValueError: it was written by `save_indexers` and is not whole, or of another version.
    """
    if not (folder / SETTINGS).is_file():
        return of_run(folder, allow_targets)
    try:
        told = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        schema, config, constants, fits = (told[name] for name in ("schema", "config", "constants", "fits"))
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"{folder}: damaged or half copied ({error!r}); write it again with dsa.save_indexers."
        ) from error
    if schema != SCHEMA:
        raise ValueError(f"{folder / SETTINGS}: schema {schema}; this version of dsa reads {SCHEMA}.")
    config |= {"allow_targets": list(allow_targets), "output_dir": str(folder), "cache_dir": None}
    return Saved(spec_from(config), weights, constants, fits)


def of_run(folder: Path, allow_targets: Sequence[str]) -> Saved:
    """The indexers of a finished run, and what it is to be used with."""
    result = finished(folder)
    spec = load_spec(folder, allow_targets)
    if not spec.given:
        raise ValueError(f"{folder}: its model is none of transformers; dsa.load_run gives it whole.")
    made, store = result.artifacts, Store(spec.outputs, "keep")
    if made["joint"] is not None:
        raise ValueError(f"{folder}: its backbone was trained too; dsa.load_run gives it whole.")
    if "judgement" not in made:
        raise ValueError(
            f"{folder}: an earlier version of dsa wrote it. Run it again with rerun=true: what was trained stays."
        )
    base = read_json(store.folder(named("base", made["base"])) / RECORD)
    judgement = read_json(store.judgement_file(named("judgement", made["judgement"])))
    if base is None or judgement is None:
        raise FileNotFoundError(f"{folder}: the base or the judgement that it stands on is gone; run it again.")
    weights = {} if made["indexers"] is None else read_weights(store.folder(named("indexers", made["indexers"])))
    return Saved(spec, weights, judgement.get("constants", {}), base["identity"]["model"])


def named(kind: str, name: str | None) -> Named:
    """An artifact by what a result calls it, whatever the model's files hold by now."""
    assert name is not None
    return Named(kind, name, name.rpartition("-")[2], "")


def check_fit(weights: dict[str, Tensor], wanted: int, where: Path) -> None:
    """Refuse a model whose attention layers are not those that the indexers were trained on."""
    trained = len({name.split(".", 1)[0] for name in weights if not name.startswith(PATTERNS)})
    if trained != wanted:
        raise ValueError(f"{where}: {trained} indexers; the attention layers of this model take {wanted}.")
