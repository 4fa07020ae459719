"""What a reader of a result must know before believing its numbers."""

import torch

from dsa.artifacts.results import RunResult
from dsa.backbones import Backbone, Router
from dsa.judging.cost import index_features, routed_indexers
from dsa.judging.threads import counted
from dsa.ops.dispatch import computes_selected_only
from dsa.precision import Exact
from dsa.selectors import Dense
from dsa.selectors.adaptive import Adaptive
from dsa.spec import Spec
from dsa.training.room import Made, all_forced, searches_everything

BELOW_UNIGRAM = 0.01  # nats a token: a loss that is less below the unigram loss says nothing about attention
IDENTITY = 1e-3  # of a logit: what rounding changes where every key is kept lies below it
DECODE = 1e-2  # of a logit: parts of a text multiply in other shapes, and layers that choose carry on what that rounds
ROUNDED = 1  # selection of a token that may be another where it comes alone: two scores that differ by rounding
CLIPPED = 0.9  # of index scores: above it a layer's ReLU leaves position to choose
MISSED = 0.9  # of the attention that as many keys could hold: a layer below it keeps others
UNLEARNED = 0.01  # nats: a dense control that ends so much above its base has forgotten something


def warnings_of(spec: Spec, result: RunResult, model: Backbone) -> list[str]:
    """What a reader must know before believing the numbers."""
    out = uninformative(spec, result) + unsolved(result)
    if not spec.sparse:
        return out
    out += not_selecting(spec, result)
    out += uncertified(result)
    out += off_target(spec, result, model)
    if result.dense_val_loss is None and spec.recipe.sparse_steps:
        out.append("no dense control was found: delta_loss is null (dense_control=true trains one).")
    out += unlearned(spec, result)
    out += clipped(spec, result)
    if spec.uses_indexer and spec.indexer.node.get("latent") is False and any(site.latent for site in model.sites):
        out.append(
            "indexer.latent = false: this model projects its queries from a latent of low rank, and the index queries "
            "come from the hidden states; indexer.latent=true takes the latent, as DeepSeek-V3.2 and GLM-5 do."
        )
    out += not_timed(spec, result, model)
    if spec.uses_indexer and not spec.recipe.warmup_steps and not spec.recipe.sparse_steps:
        out.append("no stage trained the indexers.")
    return out + not_alike(result)


def uninformative(spec: Spec, result: RunResult) -> list[str]:
    """A warning where the loss is not below that of knowing how often each token comes."""
    unigram, dense = result.unigram_loss, result.base_val_loss
    if result.val_loss is None or unigram is None or not result.val_loss > unigram - BELOW_UNIGRAM:
        return []
    told = "the loss carries no information about attention, and nothing may be ranked by it."
    if dense is not None and dense <= unigram - BELOW_UNIGRAM:
        told = f"this selection lost what dense attention knows, whose loss is {dense:.4f}."
    elif spec.given:
        told += " Is the text read by this model's own tokenizer, as with data=text_model or stdlib_model?"
    return [f"validation loss {result.val_loss:.4f} is not below the unigram loss {unigram:.4f}: {told}"]


def unsolved(result: RunResult) -> list[str]:
    """A warning where the base used up its steps below the accuracy that it was to reach."""
    base = result.base_training
    if base.get("until") is None or base["solved_at"] is not None:
        return []
    return [
        f"the base was not solved: its accuracy after all {base['steps']} steps is {base['accuracy']:.3f}, below "
        f"recipe.dense.until = {base['until']:g}. Give more recipe.dense.steps or an easier task."
    ]


def not_selecting(spec: Spec, result: RunResult) -> list[str]:
    """Warnings where no key is left out, or none is chosen by what the warm-up taught."""
    out = []
    if result.density is not None and result.density >= 1.0 and not issubclass(spec.selector.cls, Dense):
        out.append(
            f"window or budget reaches seq_len = {spec.seq_len}: every query keeps every key, this attention is dense."
        )
    made = Made(spec)
    out += [f"{reason}." for reason in (all_forced(made), searches_everything(made)) if reason is not None]
    if spec.pattern.cls.learns and not spec.uses_indexer:
        out.append(
            f"selector {spec.selector.option} ranks keys without an indexer, beside which {spec.pattern.option} "
            "learns in the warm-up: with the backbone untouched its default is shown."
        )
    return out


def not_timed(spec: Spec, result: RunResult, model: Backbone) -> list[str]:
    """Warnings where times say less than they seem to: a format is simulated, keys are masked, a sequence stood for
    all."""
    out = []
    if spec.uses_indexer and simulated(spec, model):
        out.append(
            f"precision {spec.precision.option}: its rounding is simulated in float32 arithmetic; "
            "quality counts, speed does not."
        )
    if spec.uses_indexer and not result.speed_is_real and (result.density or 1.0) < 1.0:
        out.append(
            "times are not a speed claim: a part of the attention is computed under a mask, or a format is simulated."
        )
    if any(layer.get("picked") for layer in result.selection.get("layers", [])):
        out.append(
            "times are of one sequence and of the indexer that it picked; flops are the mean over the sequences on "
            "which the selection was measured."
        )
    return out


def not_alike(result: RunResult) -> list[str]:
    """Warnings where the run and its control did not compute alike: other threads, or a processor that others used."""
    out, threads = [], result.provenance["threads_of"]
    if threads.get("joint") is not None and threads["joint"] != threads.get("control", threads["joint"]):
        out.append(
            f"this run was trained with {counted(threads['joint'])} and its dense control with "
            f"{counted(threads['control'])}: part of their difference may be rounding."
        )
    if result.time.get("contended"):
        out.append(
            "other processes used the processor while this run or its control trained: their times are not comparable. "
            "On a busy machine OMP_NUM_THREADS=1 or OMP_WAIT_POLICY=passive before the command makes it faster."
        )
    return out


def simulated(spec: Spec, model: Backbone) -> bool:
    """Whether index scores are computed in float32 and only rounded as the format says: always, or under the indexers
    of this model, which the kernels that multiply in that format do not serve."""
    here, precision = next(model.parameters()), spec.precision.make()
    if isinstance(precision, Exact) or precision.simulated(spec.ops, here.device):
        return not isinstance(precision, Exact)
    scorers = [own.scorer(index_features(own, width)) for _, own, width in routed_indexers(model)]
    return not all(computes_selected_only(spec.ops, here[:0], scorer=scorer) for scorer in scorers)


def uncertified(result: RunResult) -> list[str]:
    """Warnings where the certificate of a pretrained model finds a fault, or could find none."""
    told = result.certificate
    out: list[str] = []
    if not told:
        return out
    if told["causality"] > 0:
        out.append(
            f"this composition looks ahead: other later tokens change an earlier logit by {told['causality']:.1e} "
            "(certificate.causality). None of its numbers can be believed."
        )
    if told["identity"] > IDENTITY:
        out.append(
            f"with every key kept a logit is {told['identity']:.1e} from the model's own (certificate.identity): that "
            "is more than rounding, and its losses are not those of this model."
        )
    others, decode = told.get("reselected") or 0, told.get("decode") or 0.0  # judgements of earlier versions have none
    if others > ROUNDED or (not others and decode > DECODE):
        out.append(
            f"a text that comes token by token is not what one pass says: a logit is {decode:.1e} off, and "
            f"{others} of its selections are others (certificate.decode, certificate.reselected). What this "
            "composition generates is not what was judged."
        )
    if not told["acted"] and (result.density or 1.0) < 1.0:
        out.append(
            f"on the {told['tokens']} tokens of the certificate the selection left no key out: it says nothing of what "
            "is selected."
        )
    return out


def unlearned(spec: Spec, result: RunResult) -> list[str]:
    """A warning where joint training took from the model what it knew, by the dense control, which trained alike."""
    before, after = result.base_val_loss, result.dense_val_loss
    if not spec.recipe.sparse_steps or before is None or after is None or after < before + UNLEARNED:
        return []
    return [
        f"joint training made dense attention itself worse: {before:.4f} before, {after:.4f} after "
        f"{spec.recipe.sparse_steps} steps. Compare with base_val_loss, and give a smaller recipe.sparse.lr (it is "
        f"{spec.recipe.sparse_lr:g}; recipe=adapt is meant for pretrained models)."
    ]


def clipped(spec: Spec, result: RunResult) -> list[str]:
    """A warning that names layers whose indexer clips nearly every key, so that ReLU passes no gradient back either."""
    layers = [
        str(layer["layer"])
        for layer in result.selection.get("layers", [])
        if (layer["zero_share"] or 0.0) > CLIPPED and layer["mass"] < MISSED * layer["oracle_mass"]
    ]
    if not layers:
        return []
    return [
        f"the indexer of layer {', '.join(layers)} scores more than {CLIPPED:.0%} of the keys exactly 0 and keeps less "
        f"than {MISSED:.0%} of the attention that as many keys could hold: position chooses there, and a pair that "
        "ReLU clips teaches nothing. More heads, more rows or another seed may help"
        + (", or, on a pretrained model, indexer.weight=negative." if "weight" in spec.indexer.node else ".")
    ]


def off_target(spec: Spec, result: RunResult, model: Backbone) -> list[str]:
    """A warning where an adaptive selector misses the mean budget that makes it comparable."""
    router = next((router for router in model.routers if isinstance(router, Router)), None)
    if router is None or not router.selector.calibrates or result.mean_k is None:
        return []
    selector = router.selector
    assert isinstance(selector, Adaptive)
    target = selector.target(router.pattern.own_budget(torch.arange(spec.seq_len)))
    if target is None or abs(result.mean_k / target - 1) <= 0.05:
        return []
    return [
        f"selector {spec.selector.option} keeps {result.mean_k:.1f} keys a query, "
        f"its target is {target:.1f}: not at equal density with topk. Move "
        f"selector.min_k = {selector.min_k} or selector.max_k = {selector.max_k}."
    ]
