"""python -m dsa.analysis samples outputs/<study>: conditions compared row by row within each seed (of texts)."""

from dataclasses import asdict

from dsa.analysis.output.of_study import asked, leave


def main(arguments: list[str] | None = None) -> int:
    """Print a row a comparison; the exit status."""
    given = asked(
        "samples", __doc__, "folder of a study, as outputs/quick", "swap_val_loss, swap_val_exact_match", arguments
    )
    from dsa.analysis.inputs.prepared import prepare  # late: --help needs no statistics
    from dsa.analysis.judgement.samples import sampled
    from dsa.analysis.output.cells import number, titled, wide_console

    prepared = prepare(given.study)
    found = sampled(prepared, given.metric or prepared.meta.metric)
    table = titled(
        f"{found[0].metric}, sample by sample within seeds: 95 % intervals of other seeds and other samples",
        "tokens", "condition", "less", "difference", "interval", "within seeds", "seeds", "samples",
    )  # fmt: skip
    for one in found:
        of = one.found
        interval = "–" if of.interval is None else f"[{of.interval[0]:+.4g}, {of.interval[1]:+.4g}]"
        share = "–" if of.within is None else f"{of.within:.0%}"
        table.add_row(str(one.seq_len), one.label, one.reference, f"{number(of.mean)}", interval, share, str(of.seeds),
                      str(of.samples))  # fmt: skip
    wide_console().print(table)
    leave([asdict(one) for one in found], given.json)
    return 0
