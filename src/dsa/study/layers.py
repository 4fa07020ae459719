"""What each condition and each control of a study overrides."""

from collections.abc import Iterator

from dsa.artifacts.names import BUDGET, GROUPS, OWN, SHARING, is_compared
from dsa.study.composer import Composer, Layer, root
from dsa.study.labels import valued
from dsa.study.question import Study


def settings_of(study: Study, composer: Composer) -> Iterator[tuple[str, str, str, Layer]]:
    """Label, role, context and overrides of every condition, then of the controls: one set of them for each context."""
    contexts: dict[str, Layer] = {}
    for label in study.conditions:
        whole = study.overrides(label, composer.groups)
        context = context_of(whole, study, composer.groups)
        yield label, "condition", context, whole
        contexts.setdefault(context, whole)
    for name, whole in contexts.items():
        around = {key: value for key, value in whole.items() if root(key) not in (*GROUPS, SHARING)}
        around |= {key: value for key, value in study.common.items() if key == SHARING}
        for control in study.controls:
            label = f"{control}-{name}" if len(contexts) > 1 else control
            if control == "dense":
                yield label, "control", name, around | {"pattern": "causal", "selector": "dense"}
            elif control == "replicate":
                again = baseline_in(study, name, composer.groups)
                if again is not None:
                    yield label, "control", name, again
            else:
                pattern = pattern_of_controls(study, composer)
                yield label, "control", name, around | pattern | selector_of_control(study, control, whole)


def baseline_in(study: Study, context: str, groups: set[str]) -> Layer | None:
    """The baseline's overrides, or of what takes its place in a context; None if nothing does."""
    options = compared(study.overrides(study.baseline, groups), study)
    for label in (study.baseline, *study.conditions):
        whole = study.overrides(label, groups)
        if context_of(whole, study, groups) == context and compared(whole, study) == options:
            return whole
    return None


def compared(layer: Layer, study: Study) -> Layer:
    """The part of a condition that is compared."""
    return {key: value for key, value in layer.items() if is_compared(key, study.budget)}


def pattern_of_controls(study: Study, composer: Composer) -> Layer:
    """The pattern that all conditions share; where they differ in it, that of `common`, else causal."""
    common, *own = (
        {key: value for key, value in layer.items() if root(key) == "pattern"}
        for layer in (study.common, *(study.overrides(label, composer.groups) for label in study.conditions))
    )
    if all(pattern == own[0] for pattern in own):
        return own[0]
    if "pattern" in common:
        return common
    return {"pattern": "causal"} | {k: v for k, v in common.items() if composer.has(k, "pattern=causal")}


def selector_of_control(study: Study, control: str, whole: Layer) -> Layer:
    """A control at the study's budget, or that of the conditions around it; without one, at the pattern's own.

    Args:
        whole: overrides of a condition that it is to stand beside.
    """
    own = whole if study.budget == OWN else study.common
    budget = own.get(BUDGET) if study.budget in (None, OWN) else study.budget
    chosen = {"indexer": "static", "selector": "topk"} if control == "static" else {"selector": control}
    return chosen | ({} if budget is None else {BUDGET: budget})


def context_of(layer: Layer, study: Study, groups: set[str]) -> str:
    """What tells a condition's base and controls from those of others, as a name."""
    own = study.around(layer)
    used = {k: [one[k] for one in study.conditions.values() if k in one] for k in own}
    return "-".join(str(v) if k in groups else valued(k, v, used[k]) for k, v in own.items())
