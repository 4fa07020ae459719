"""A composition that leaves its indexer nothing to choose is refused before anything is trained."""

import pytest
from conftest import SMALL

from dsa import compose
from dsa.artifacts.results import RunResult
from dsa.build import build_data, build_model
from dsa.training.caveats import warnings_of
from dsa.training.rehearsal import rehearse
from dsa.training.room import Made, too_wide

GAPS = "pattern={1} with indexer={0}, which chooses blocks of indexer.unit = {2} tokens: its keys "
WHOLE = "Patterns that show whole blocks: causal, hierarchical_16_64_32, "


@pytest.mark.parametrize(
    ("indexer", "unit", "pattern", "words"),
    [
        ("moba", 4, ["strided"], [GAPS + "lie 4 tokens apart. " + WHOLE]),
        ("qwen4_qsa", 4, ["multi_head"], [GAPS + "lie 4 tokens apart. "]),
        ("glm5_kpool", 16, ["sinks"], [GAPS + "begin at 4, within a block. "]),
        ("quest", 8, ["learned", "pattern.patterns.near.window=4"], [GAPS + "begin at 4, within a block. "]),
        ("moba", 16, ["causal", "selector.k=16"], ["a budget of 16 has no room", "selector.k or pattern.budget"]),
        ("block_mean", 8, ["causal", "selector.k=8"], ["indexer={0}: up to 7", "indexer.unit"]),
        ("minimax_m3", 64, ["causal", "selector.k=63"], ["a budget of 63 has no room for a block of 64 tokens"]),
    ],
)
def test_blocks_that_cannot_be_chosen_are_refused_in_a_sentence_that_names_the_settings(indexer, unit, pattern, words):
    spec = compose([*SMALL, f"indexer={indexer}", f"indexer.unit={unit}", f"pattern={pattern[0]}", *pattern[1:]])
    with pytest.raises(ValueError) as refused:
        rehearse(spec, build_data(spec))
    told = str(refused.value)
    for word in words:
        assert word.format(spec.indexer.option, spec.pattern.option, unit) in told
    assert told.count("\n") == 0 and "strided" not in told.partition("Patterns that show")[2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["pattern=adaptive", "pattern.prefix=64"], "pattern.prefix = 64: the tokens that decide leave none of 64 to"),
        (["pattern=learned", "pattern.groups=3"], "pattern.groups: it gives zones for 3 groups; give a number of"),
        (["pattern=multi_head", "pattern.deal=near far far"], "pattern.deal: it gives zones for 3 groups; give a nu"),
    ],
)
def test_a_pattern_that_does_not_fit_the_model_or_the_length_is_refused_by_its_setting(settings, words):
    spec = compose([*SMALL, *settings])
    with pytest.raises(ValueError) as refused:
        rehearse(spec, build_data(spec))
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize(
    "settings",
    [
        ["indexer=moba", "indexer.unit=16", "pattern=causal", "selector.k=32"],
        ["indexer=minimax_m3", "indexer.unit=64", "pattern=causal", "selector.k=100"],
        ["indexer=moba", "indexer.unit=4", "pattern=learned"],
        ["indexer=moba", "indexer.unit=4", "pattern=strided", "selector=random"],
        ["indexer=h1d8", "pattern=multi_head", "selector.k=8"],
        ["indexer=moba", "indexer.unit=16", "pattern=causal", "selector=adaptive_entropy", "selector.min_k=4"],
    ],
)
def test_what_can_be_chosen_is_rehearsed(settings):
    spec = compose([*SMALL, *settings])
    rehearse(spec, build_data(spec))


@pytest.mark.parametrize(("blocks", "said"), [(16, True), (15, False)])
def test_a_search_that_leaves_nothing_out_is_a_warning_of_the_result(blocks, said):
    spec = compose([*SMALL, "indexer=hisa", "indexer.block=4", f"indexer.blocks={blocks}", "selector.k=8"])
    result = RunResult("r", "finished", "s", {}, "m", "d", "r", 64, 0, provenance={"threads_of": {}})
    found = [said for said in warnings_of(spec, result, build_model(spec, 64)) if "without a search" in said]
    assert len(found) == said and all("searches 64 tokens" in one and "seq_len = 64" in one for one in found)


@pytest.mark.parametrize(
    ("settings", "forced"),
    [
        (["pattern=local_global_sinks", "selector.k=16"], "36 forced keys use up the budget of 16"),
        (["pattern=local_global", "selector=random", "selector.k=32"], "32 forced keys use up the budget of 32"),
        (["pattern=local_global", "selector.k=33"], None),
        (["pattern=local_global", "selector=adaptive_entropy"], None),
        (["pattern=causal", "selector=dense"], None),
        (["recipe=dense"], None),
    ],
)
def test_a_pattern_that_leaves_its_indexer_nothing_to_choose_is_a_warning_of_the_result(settings, forced):
    spec = compose([*SMALL, "indexer=h1d8", *settings])
    result = RunResult("r", "finished", "s", {}, "m", "d", "r", 64, 0, provenance={"threads_of": {}})
    found = [said for said in warnings_of(spec, result, build_model(spec, 64)) if "nothing is left to choose" in said]
    assert found == ([] if forced is None else [f"the pattern's {forced}: nothing is left to choose."])
    assert forced is None or too_wide(Made(spec)) == found[0].rstrip(".")
