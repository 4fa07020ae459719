"""What a run shows on the terminal: its configuration as a tree, its result as a small table. run.log keeps it too."""

import io
import logging
from collections.abc import Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from dsa.artifacts.results import RunResult
from dsa.kinds import shown
from dsa.spec import Spec

console = Console(highlight=False)
HIDDEN = ("choices", "overridden", "hydra", "steps")
WIDTH = 120  # columns of what run.log keeps

said = logging.getLogger("said")
"""Hears of all that is shown here; it is on the terminal already, so only a run's log listens.

It is no child of the logger `dsa`: Hydra configures that one for each job, and its children would speak there again.
"""
said.propagate = False
said.setLevel(logging.INFO)


def say(what: RenderableType, whole: bool = False) -> None:
    """Show something on the terminal, and keep it in the log of the run that is under way.

    Args:
        whole: a line that is not to be broken.
    """
    console.print(what, soft_wrap=whole)
    if said.handlers:
        kept = io.StringIO()
        Console(file=kept, width=WIDTH, highlight=False, no_color=True, force_jupyter=False).print(
            what, soft_wrap=whole
        )
        said.info(kept.getvalue().rstrip())


def show_config(spec: Spec) -> None:
    """The composed configuration as a tree, the chosen option behind each group's name, the steps as they will be."""
    tree = Tree("[bold]configuration[/]", guide_style="dim")
    content = spec.content | {"recipe": stages_of(spec)}
    for name, value in content.items():
        if isinstance(value, dict) and name not in HIDDEN:
            option = escape(spec.options.get(name, "custom"))
            branch(tree.add(f"[bold]{escape(name)}[/] [cyan]{option}[/]"), value)
    rest = {name: value for name, value in content.items() if not isinstance(value, dict) and name not in HIDDEN}
    branch(tree, {name: value for name, value in rest.items() if value not in (None, [])})
    say(tree)


def steps_of(spec: Spec) -> dict[str, int]:
    """Optimiser steps of the stages that will run."""
    recipe = spec.recipe
    warmup = recipe.warmup_steps if spec.uses_indexer else 0
    steps = {"dense": recipe.dense_steps, "warmup": warmup, "sparse": recipe.sparse_steps}
    return {name: count for name, count in steps.items() if count}


def stages_of(spec: Spec) -> dict[str, Any]:
    """The recipe with the stages that will run, each with its own steps."""
    recipe, steps = spec.content["recipe"], steps_of(spec)
    stages = {name: recipe[name] | {"steps": count} for name, count in steps.items()}
    return {name: value for name, value in recipe.items() if not isinstance(value, dict)} | stages


def branch(tree: Tree, values: dict[str, Any]) -> None:
    """Plain values in one line, nested ones below."""
    flat = {k: v for k, v in values.items() if not isinstance(v, dict)}
    if flat:
        tree.add("[dim]" + escape("  ".join(f"{k}={shown(v)}" for k, v in flat.items())) + "[/]")
    for name, value in values.items():
        if isinstance(value, dict):
            branch(tree.add(escape(name)), value)


def show_start(spec: Spec, name: str) -> None:
    """One line before training: which run, in which dtype, how long."""
    stages = ", ".join(f"{stage} {count}" for stage, count in steps_of(spec).items())
    say(f"[bold]{escape(name)}[/]  {spec.dtype}; steps: {stages}", whole=True)


def show_result(result: RunResult, farewell: Sequence[str]) -> None:
    """The end of a run: the numbers that matter, warnings, and where everything lies."""
    condition = " · ".join(name for name in result.condition.values() if name != "none")
    title = escape(f"{condition}   {result.model} · {result.data}")
    table = Table(title=f"{title} · L {result.seq_len} · seed {result.seed}", title_justify="left")
    table.add_column("")
    table.add_column("this run", justify="right")
    table.add_column("compare", justify="left", style="dim")
    dense = result.dense_val_loss
    row = table.add_row
    row("validation loss", number(result.val_loss, 4), pair("dense", dense, 4, difference=result.val_loss))
    row("", "", f"unigram {number(result.unigram_loss, 4)}, chance {number(result.chance_loss, 4)}")
    row(
        "perplexity",
        number(result.val_perplexity, 3),
        pair("dense", result.dense_val_perplexity, 3),
    )
    row("accuracy", percent(result.val_accuracy), pair("dense", result.dense_val_accuracy, percentage=True))
    if result.val_exact_match is not None:
        row(
            "exact match", percent(result.val_exact_match), pair("dense", result.dense_val_exact_match, percentage=True)
        )
    if result.swap_val_loss is not None:
        compare = f"{pair('dense', result.base_val_loss, 4)}  {pair('window', result.swap_window_loss, 4)}"
        row("loss, backbone untouched", number(result.swap_val_loss, 4), compare)
        if result.swap_sink_window_loss is not None:
            row("", "", pair("first and nearest keys", result.swap_sink_window_loss, 4))
    if result.density is not None:
        row("density", percent(result.density), f"{number(result.mean_k, 1)} keys a query on average")
    mean = result.selection.get("mean", {})
    if mean:
        recall = percent(mean.get("recall"))
        row("mass", number(mean.get("mass"), 3), f"oracle {number(mean.get('oracle_mass'), 3)}, recall {recall}")
    if result.certificate:
        told = result.certificate
        row("selection acted", f"{told['acted']} of {told['tokens']}", "queries of the text that was checked")
        row("every key kept", f"{told['identity']:.1e}", "largest change of a logit against the model as it is")
        row("later tokens changed", f"{told['causality']:.1e}", "largest change of an earlier logit")
        if told.get("decode") is not None:  # judgements of earlier versions have none
            others = f"against one pass, in a logit; {told['reselected']} selections are others"
            row("token by token", f"{told['decode']:.1e}", others)
        if told["ties"] is not None:
            row("ties at the k-th score", percent(told["ties"]), "where position alone decides")
    if result.params:
        share = percent(result.params["indexer_share"])
        row("indexer parameters", f"{result.params['indexer']:,}", f"{share} of {result.params['total']:,}")
    if result.time:
        real = "" if result.speed_is_real else " (no speed claim)"
        row(
            "step, ms",
            number(result.time.get("step_ms"), 0),
            f"{pair('dense', result.time.get('dense_step_ms'), 0)}{real}",
        )
    say(table)
    for warning in result.warnings:
        say(f"[yellow]warning[/] {escape(warning)}", whole=True)
    for line in [*map(escape, farewell), f"[bold]{escape(result.folder)}[/]"]:
        say(line, whole=True)


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def pair(
    name: str, value: float | None, digits: int = 4, difference: float | None = None, percentage: bool = False
) -> str:
    """A value to compare with, and how far this run's is from it."""
    if value is None:
        return f"{name} -"
    text = f"{name} {percent(value) if percentage else number(value, digits)}"
    return text if difference is None else f"{text}, {difference - value:+.{digits}f}"
