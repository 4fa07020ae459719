"""Loss by budget before any indexer is trained: what an indexer aims at, and what each has to beat."""

import json

import pytest

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from dsa.artifacts.store import PLACES
from dsa.budget.curve import SELECTORS, Budget, Point, budgets, sentence
from dsa.budget.show import figure
from dsa.doors.budget import main
from training.test_pretrained_run import folder, settings  # noqa: F401  (fixtures)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(settings, tmp_path_factory):  # noqa: F811
    place = tmp_path_factory.mktemp("budget")
    own = [s for s in settings if not s.startswith(("indexer=", "output_dir="))]
    own = [s for s in own if not s.startswith("selector.k")]
    return [*own, f"output_dir={place / 'outputs'}"], place


def test_each_selector_at_each_budget_is_judged_drawn_and_found_again(command, capsys):
    overrides, place = command
    arguments = ["--k", "4,24", *overrides, "--to", str(place / "told")]
    assert main(arguments) == 0
    told = json.loads((place / "told" / "budget.json").read_text())
    points = {(p["selector"], p["k"]): p for p in told["points"]}
    assert points.keys() == {(name, k) for name in SELECTORS for k in (4, 24)}
    for k in (4, 24):
        assert points["oracle", k]["mass"] > points["sink_window", k]["mass"], "the best keys hold most"
        assert points["oracle", k]["mass"] > points["random", k]["mass"]
        assert len(points["oracle", k]["layers"]) == 2
    assert told["layers"] == [0, 1]
    assert points["oracle", 24]["mass"] > points["oracle", 4]["mass"]
    assert (place / "told" / "budget.png").read_bytes()[:4] == b"\x89PNG"
    said = capsys.readouterr()
    assert "nothing can be concluded" in said.out and "  " not in said.out[said.out.index("Loss over dense") :]
    assert "oracle, 24 keys: " in said.err and " nats a token over dense\n" in said.err
    assert not (place / "outputs" / PLACES["indexers"]).exists(), "no indexer was trained"
    times = {path: path.stat().st_mtime_ns for path in (place / "outputs" / PLACES["judgement"]).iterdir()}
    assert main(arguments) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}, "nothing is judged twice"


def test_without_a_folder_each_question_has_one_of_its_own_below_the_output_folder(command, capsys):
    overrides, place = command
    for more in ([], ["seed=1"], []):
        assert main([*overrides, *more, "--k", "24"]) == 0
    found = sorted(path.parent for path in (place / "outputs" / "budgets").glob("*/budget.json"))
    assert len(found) == 2 and all(json.loads((one / "budget.json").read_text())["name"] == one.name for one in found)
    asked = [json.loads((one / "budget.json").read_text())["overrides"] for one in found]
    assert sorted("seed=1" in one for one in asked) == [False, True]


def test_a_choice_for_each_key_value_head_holds_more_than_a_shared_one(command):
    told = json.loads((command[1] / "told" / "budget.json").read_text())
    mass = {(p["selector"], p["k"]): p["mass"] for p in told["points"]}
    assert mass["oracle_by_head", 4] > mass["oracle", 4]


def test_enough_is_the_budget_from_which_on_nothing_is_lost():
    def curve(*over):
        points = [Point("oracle", k, 2 + o, o, 0.9, [0.9]) for k, o in zip((4, 8, 16, 32), over, strict=True)]
        return Budget("m-d-L64", [], "m", "d", 64, 8, 2.0, 3.0, 0.05, points)

    assert curve(0.4, 0.2, 0.04, 0.01).enough("oracle") == 16
    assert curve(0.01, 0.2, 0.04, 0.01).enough("oracle") == 16, "a budget below it that lies within by chance is none"
    assert curve(0.4, 0.2, 0.1, 0.06).enough("oracle") is None
    assert curve(-0.1, 0.0, 0.0, 0.0).enough("oracle") == 4
    assert "16 of 64 keys (25.0%)" in sentence(curve(0.4, 0.2, 0.04, 0.01))
    assert "No budget up to 32 keys" in sentence(curve(0.4, 0.2, 0.1, 0.06))


@pytest.mark.parametrize(
    ("sinks", "near", "said"),
    [
        (
            None,
            None,
            "The first and the nearest alone are not with up to 32 keys, nor the nearest: there is something to learn.",
        ),
        (32, None, "The first and the nearest keys alone need 32; the nearest keys alone are not with up to 32 keys."),
        (None, 32, "The first and the nearest keys alone are not with up to 32 keys; the nearest keys alone need 32."),
        (32, 16, "the nearest keys alone need 16. So there is nothing for an indexer to learn here."),
    ],
)
def test_what_needs_no_learning_is_told_with_the_nearest_keys_alone_too(sinks, near, said):
    def points(name, first):
        over = {k: 0.0 if first is not None and k >= first else 0.2 for k in (16, 32)}
        return [Point(name, k, 2 + lost, lost, 0.9, [0.9]) for k, lost in over.items()]

    every = [*points("oracle", 16), *points("sink_window", sinks), *points("window", near)]
    assert sentence(Budget("m-d-L64", [], "m", "d", 64, 8, 2.0, 3.0, 0.05, every)).endswith(said)


def test_nothing_is_concluded_from_a_loss_that_keys_do_not_move():
    oracle = [Point("oracle", k, 2.0, over, 0.9, [0.9]) for k, over in ((4, 0.1), (8, 0.0))]
    random = [Point("random", k, 2.0, over, 0.1, [0.1]) for k, over in ((4, 0.1), (8, 0.0))]
    better = [Point("random", k, 2.0, 0.0, 0.1, [0.1]) for k in (4, 8)]
    never = [Point("oracle", k, 2.0, 0.1, 0.9, [0.9]) for k in (4, 8)]
    told = {
        "untrained": Budget("m-d-L64", [], "m", "d", 64, 8, 2.0, 2.005, 0.05, oracle),
        "as good": Budget("m-d-L64", [], "m", "d", 64, 8, 2.0, 3.0, 0.05, [*oracle, *random]),
        "better": Budget("m-d-L64", [], "m", "d", 64, 8, 2.0, 3.0, 0.05, [*oracle, *better]),
        "alone": Budget("m-d-L64", [], "m", "d", 64, 8, 2.0, 3.0, 0.05, [*never, *better]),
        "worse": Budget("m-d-L64", [], "m", "d", 64, 8, 2.0, 3.0, 0.05, [*oracle, random[0]]),
    }
    said = {name: sentence(budget) for name, budget in told.items()}
    assert "not below the unigram loss 2.005" in said["untrained"]
    assert "Random keys are within 0.05 nats of it from 8 on" in said["as good"]
    assert [name for name in said if "nothing can be concluded" not in said[name]] == ["worse"]


def test_a_layer_is_named_by_its_number_in_the_model(command, capsys, tmp_path):
    assert main([*command[0], "model.leave_dense=[0]", "--k", "4", "--to", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "budget.json").read_text())
    assert told["layers"] == [1] and all(len(point["layers"]) == 1 for point in told["points"])
    points = [Point(**point) for point in told["points"]]
    kept = {name: value for name, value in told.items() if name not in ("points", "enough")}
    drawn = figure(Budget(**kept, points=points))
    assert [text.get_text() for axes in drawn.axes for text in axes.texts] == ["layer 1"]


def test_the_margin_is_told_in_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "(0.05)" in capsys.readouterr().out


def test_budgets_are_shares_of_the_length():
    assert budgets(512) == [8, 16, 32, 64, 128, 256] and budgets(32) == [2, 4, 8, 16]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--k", "48"], "--k 48: a budget is from 1 to seq_len - 1 = 47 keys."),
        (["--margin", "0"], "--margin = 0.0"),
        (["model=nothing"], "model = nothing: no such option"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(command, arguments, said, capsys):
    assert main([*command[0], *arguments]) == 2
    assert said in capsys.readouterr().err


def test_budgets_that_are_no_numbers_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--k", "16,seq_len=48"])
    assert "seq_len=48: give a whole number from 1." in capsys.readouterr().err
