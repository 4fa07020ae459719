"""The command that a report prints for a condition trains that very run."""

import shlex
from dataclasses import replace

import pytest
from analysis.made_up import meta_of
from conftest import QUIET, SMALL

from dsa import compose
from dsa.analysis.inputs.commands import command
from dsa.analysis.inputs.prepared import assemble
from dsa.graph import graph_of
from dsa.training.run_folder import write_config
from study.studies import plans_of

FEW = [*SMALL, *QUIET, "name=mine", "seed=3,5", "selector.k=8"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("judge", "arguments", "told"),
    [
        ("swap", ["indexer=h1d8,h2d8", "pattern=causal"], {"judge=swap"}),
        ("swap", ["index_every=1,2,[0,1]", "pattern=causal"], {"index_every=2", "index_every=[0,1]", "judge=swap"}),
        ("val", ["indexer_seed=7", "pattern=causal", "dtype=bf16", "steps=9"], {"indexer_seed=7", "dtype=bf16"}),
        ("val", ["precision=fp16", "precision.in_training=true", "pattern=causal"], {"precision.in_training=true"}),
        ("val", ["pattern=multi_head", "pattern.deal=far near", "selector.k=40", "seq_len=96"], {"seq_len=96"}),
        ("val", ["experiment=recall", "indexer=h1d16", "indexer.weight=positive,signed"], {"indexer.weight=positive"}),
    ],
)  # fmt: skip
def test_the_command_of_a_condition_trains_that_run(judge, arguments, told, outputs, tmp_path):
    (plan,) = plans_of(*FEW, f"output_dir={outputs}", *arguments, exploratory=True, judge=judge)
    printed = set()
    for run in plan.applicable:
        folder = tmp_path / run.label / str(run.seed)
        folder.mkdir(parents=True)
        write_config(run.spec, folder)
        meta = replace(meta_of({run.label: {}}, (run.seq_len,), planned=()), runs=[
            {"label": run.label, "role": "condition", "context": "", "seq_len": run.seq_len, "seed": run.seed}
        ])  # fmt: skip
        result = {"status": "finished", "folder": str(folder), "dtype": run.spec.dtype}
        line = shlex.split(command(assemble(meta, [result]), run.label, run.seq_len))
        assert line[:2] == ["dsa", "train"]
        again = graph_of(compose(line[2:]), run.point.corpus)
        assert again.hash == run.hash, shlex.join(line)
        printed |= set(line)
    assert told <= printed
