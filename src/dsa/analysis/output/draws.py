"""python -m dsa.analysis draws outputs/<study>: how much lies between bases, how much between draws of the indexers."""

from dataclasses import asdict

from dsa.analysis.output.of_study import asked, leave


def main(arguments: list[str] | None = None) -> int:
    """Print a row a condition; the exit status."""
    given = asked(
        "draws",
        __doc__,
        "folder of a study that lists indexer_seed, as outputs/quick",
        "swap_val_loss, swap_val_accuracy",
        arguments,
    )
    from dsa.analysis.inputs.meta import read_meta  # late: --help needs no statistics
    from dsa.analysis.inputs.results import read_results
    from dsa.analysis.judgement.draws import drawn
    from dsa.analysis.output.cells import number, titled, wide_console

    meta = read_meta(given.study)
    found = drawn(meta, read_results(given.study, meta), given.metric or meta.metric)
    table = titled(
        f"{found[0].metric} over dense attention on the same base: standard deviations, and bases within the margin",
        "tokens", "condition", "mean", "between bases", "between draws", "of the variance between draws",
        "all draws hold", "some", "none", "bases", "draws",
    )  # fmt: skip
    for one in found:
        of = one.found
        share = "–" if of.share is None or of.interval is None else (
            f"{of.share:.0%} [{of.interval[0]:.0%}, {of.interval[1]:.0%}]"
        )  # fmt: skip
        hold = ("–",) * 3 if one.hold is None else map(str, one.hold)
        table.add_row(str(one.seq_len), one.label, number(of.mean), number(of.between), number(of.within), share, *hold,
                      str(of.bases), str(of.draws))  # fmt: skip
    wide_console().print(table)
    leave([asdict(one) for one in found], given.json)
    return 0
