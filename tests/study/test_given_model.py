"""A given model is one base for every seed: what no indexer has a part in is judged once for all of them."""

import pytest

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, little_text, saved
from conftest import QUIET

from dsa import compose
from dsa.artifacts.store import PLACES
from dsa.build import build_data
from dsa.graph import Graph, graph_of, run_id
from dsa.judging import judge as judging
from dsa.selectors import Oracle, TopK
from dsa.study.jobs import Job
from dsa.study.messages import show_plan
from dsa.training import work
from study.studies import drive, jobs_of, planned

pytestmark = pytest.mark.slow
LENGTH = 32


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> list[str]:
    place = tmp_path_factory.mktemp("given")
    folder = saved(place / "tiny", CONFIGS["llama"](), tokenizer=True)
    return [
        "model=pretrained", f"model.path={folder}", "data=text_model", f"data.path={little_text(place)}",
        f"cache_dir={place}", "pattern=causal", f"seq_len={LENGTH}", "recipe.warmup.steps=2",
        "dtype=fp32", *QUIET,
    ]  # fmt: skip


@pytest.fixture
def graph(settings, outputs):
    def made(*overrides: str) -> Graph:
        spec = compose([*settings, "indexer=h2d8", f"output_dir={outputs}", *overrides])
        return graph_of(spec, build_data(spec).fingerprint)

    return made


def test_seeds_share_the_base_and_all_judgements_without_an_indexer(graph):
    one, other = (graph("selector.k=6", f"seed={seed}") for seed in (0, 1))
    for part in ("base", "dense", "window", "sinks"):
        assert getattr(one, part) == getattr(other, part) is not None, part
    assert "-s0" not in one.base.name
    assert one.indexers.hash != other.indexers.hash and one.indexers.lesson != other.indexers.lesson
    assert one.swap.hash != other.swap.hash and one.hash != other.hash and one.place != other.place


def test_other_training_rows_are_other_indexers_and_calibrate_other_budgets(graph):
    """Indexers begin alike under both: `data.seed` alone draws the rows."""
    one, other = graph("selector.k=6"), graph("selector.k=6", "data.seed=1")
    assert one.base == other.base and one.indexers.hash != other.indexers.hash and one.hash != other.hash
    adaptive = ["selector=adaptive_position", "selector.min_k=2", "selector.target_mean=6"]
    one, other = graph(*adaptive), graph(*adaptive, "data.seed=1")
    assert one.dense == other.dense and one.window.hash != other.window.hash


def test_runs_of_a_control_have_a_name_and_a_hash_for_each_seed(settings, outputs):
    names = set()
    for seed in range(3):
        spec = compose([*settings, "selector=oracle", "selector.k=6", f"seed={seed}", f"output_dir={outputs}"])
        names.add(run_id(spec, graph_of(spec, build_data(spec).fingerprint)))
    assert len({name.rpartition("-")[2] for name in names}) == 3


@pytest.mark.parametrize("control", ["oracle", "oracle_by_head", "random", "window", "sink_window"])
def test_controls_are_compared_with_the_same_nearest_keys_as_conditions_of_their_budget(graph, control):
    own, other = graph("selector.k=6"), graph(f"selector={control}", "selector.k=6")
    assert (own.window, own.sinks) == (other.window, other.sinks) and own.window.code == other.window.code
    assert graph(f"selector={control}", "selector.k=7").window != own.window != graph("selector=ratio_10").window


class Half(TopK):
    """Half as many keys as it is told."""

    def __init__(self, k: int) -> None:
        super().__init__(k // 2)


@pytest.mark.parametrize("kind", [TopK, Oracle])
def test_a_selector_that_derives_from_top_k_stands_for_its_own_budget(kind):
    own = {"_target_": "mine.Half", "k": 6}
    assert Half.budget(own) == own and type("Other", (kind,), {}).budget(own) == own
    assert kind.budget(own) == {"_target_": "dsa.selectors.TopK", "k": 6}


def test_a_study_judges_controls_once_and_trains_the_seeds_apart(settings, outputs, monkeypatch):
    plan = planned(
        {"judge": "swap", "conditions": {"indexer": ["h1d8", "h2d8"]}, "controls": ["dense", "oracle"]},
        *settings, "selector.k=6", "seed=0,1", f"output_dir={outputs}",
    )  # fmt: skip
    jobs: dict[str, list[Job]] = {}
    for job in jobs_of(plan, outputs):
        jobs.setdefault(job.kind, []).append(job)
    assert {kind: len(own) for kind, own in jobs.items()} == {"base": 1, "cohort": 2, "judge": 2}
    assert len({job.folder for own in jobs.values() for job in own}) == 5
    base = jobs["base"][0].makes[0][1].name
    assert [job.title for job in jobs["cohort"]] == [f"indexers of {base}, seed {seed}: h1d8, h2d8" for seed in (0, 1)]
    judged = []
    monkeypatch.setattr(work, "judge", lambda *given: judged.append(given[-1]) or judging.judge(*given))
    outcome = drive([plan], outputs)
    assert len(outcome.done) == 8 and not outcome.failed and not outcome.missing
    assert len(list((outputs / PLACES["base"]).iterdir())) == 1
    assert len(list((outputs / PLACES["indexers"]).glob("h*"))) == 4
    assert len(judged) == 4 + 4, "dense, nearest, first and nearest, oracle; and two indexers under two seeds"


def test_lengths_that_the_model_does_not_read_are_said_before_anything_runs(settings, outputs, capsys):
    plan = planned(
        {"conditions": {"indexer": ["h1d8", "h2d8"]}, "exploratory": True},
        *settings, "selector.k=6", "seq_len=32,300", f"output_dir={outputs}",
    )  # fmt: skip
    assert {run.seq_len for run in plan.applicable} == {32}
    show_plan([plan])
    said = capsys.readouterr().out
    assert said.count("at 300: seq_len = 300: the model reads at most 256 tokens") == 7
    assert "judged on the model as it is given" in said
