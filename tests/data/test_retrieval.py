"""What is planted lies where it is said to, its question follows from the text alone, and nothing near answers it."""

import math
import re
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import compose, load_study, train
from dsa.data import IGNORE, Batch, BPETokenizer, ByteTokenizer, DataModule, ModelTokenizer, Retrieval, TextFiles
from dsa.data.forms import FORMS, Amounts
from dsa.data.hashing import generator
from dsa.judging.evaluation import DEPTHS, EvalMetrics

LENGTH = 1024
GAP = 3 * LENGTH // 8


@pytest.fixture(scope="module")
def novel(tmp_path_factory):
    """A text long enough for rows from all over, in which every place is different."""
    path = tmp_path_factory.mktemp("novel") / "novel.txt"
    path.write_text("".join(f"Line {number} of a very long book.\n" for number in range(3000)))
    return path


@pytest.fixture(scope="module")
def made(novel, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def make(form="multi_key", tokenizer=None, text=novel, **settings):
        corpus = TextFiles(str(text))
        return Retrieval(corpus, tokenizer or ByteTokenizer(), form, cache_dir=str(cache), **settings)

    return make


def read(source, batch):
    """Of each row the text up to its answer, the answer, and the position of the first query."""
    for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        first = next(t for t, target in enumerate(targets) if target != IGNORE)
        yield source.tokenizer.decode(tokens[: first + 1]), source.tokenizer.decode(targets[first:]), first


def solved(text):
    """What somebody answers who reads the text with regular expressions; None where it does not say."""
    question = text.rsplit("\n", 1)[1]
    if found := re.fullmatch(r"The variables that hold (\d+), in order, are:", question):
        chain = re.findall(rf"VAR (\w+) = {found[1]}\.", text)
        while following := re.findall(rf"VAR (\w+) = VAR {chain[-1]}\.", text) if chain else []:
            chain += following
        return f" {', '.join(chain)}"
    which, key = re.fullmatch(
        r"The (first |second |)special magic numbers? for (.+) in the text,? .*:", question
    ).groups()
    values = re.findall(rf"The special magic number for {key} is: (\d+)\.", text)
    if which:
        values = values[which == "second " :][:1]
    return f" {', '.join(values)}"


@pytest.mark.slow
@pytest.mark.parametrize("form", [*FORMS, "mixture"])
@pytest.mark.parametrize("part", ["training", "evaluation"])
@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BPETokenizer(300)], ids=["bytes", "bpe"])
def test_reading_the_text_answers_every_row_and_the_nearest_tokens_answer_none(made, form, part, tokenizer):
    source = made(form, tokenizer)
    source.check(LENGTH)
    batch = source.evaluation(40, LENGTH) if part == "evaluation" else source.sample(40, LENGTH, generator("test"))
    assert batch.tokens.shape == batch.targets.shape == (40, LENGTH)
    for (text, answer, first), tokens in zip(read(source, batch), batch.tokens.tolist(), strict=True):
        assert solved(text) == answer
        near = source.tokenizer.decode(tokens[first - GAP + 1 : first + 1])
        assert not any(part in near for part in answer.strip().split(", "))


def test_a_gap_of_ones_own_is_kept_exactly(made):
    source = made("single", gap=200)
    last = [first - text.index(f"{answer}.\n") - len(answer) - 1 for text, answer, first in
            read(source, source.sample(400, 512, generator("test")))]  # fmt: skip
    assert min(last) == 200 and max(last) > 350


@pytest.mark.parametrize("form", [*FORMS, "mixture"])
def test_the_answers_tokens_are_asked_at_the_end_of_the_row_with_the_right_ones_before_them(made, form):
    batch = made(form).sample(40, LENGTH, generator("test"))
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        asked = (targets != IGNORE).nonzero()[:, 0]
        assert asked.tolist() == list(range(int(asked[0]), LENGTH))
        assert torch.equal(tokens[asked[1:]], targets[asked[:-1]])


@pytest.mark.parametrize("form", ["single", "multi_key", "two_needle"])
def test_the_needle_lies_at_the_depth_that_is_told_and_depths_are_spread_evenly(made, form):
    source = made(form)
    batch = source.evaluation(400, LENGTH)
    for (text, answer, _), depth in zip(read(source, batch), batch.depth.tolist(), strict=True):
        needle = re.search(rf"\nThe special magic number for [a-z ]+ is:{answer}\.\n", text)
        question = text.rsplit("\n", 1)[1]
        stop = source.stop(LENGTH, len(question) + 1, len(answer))
        assert depth == pytest.approx(needle.start() / (stop - len(needle[0])), abs=1e-6)
        assert needle.end() <= stop
    shares = torch.histc(batch.depth, DEPTHS, 0, 1) / 400
    assert shares.min() > 0.1 and shares.max() < 0.3


@pytest.mark.parametrize("form", ["multi_value", "variable"])
def test_of_several_needles_the_first_that_is_needed_gives_the_depth(made, form):
    source = made(form)
    batch = source.evaluation(60, LENGTH)
    for (text, answer, _), depth in zip(read(source, batch), batch.depth.tolist(), strict=True):
        one = answer.strip().split(", ")[0]
        start = text.rindex("\n", 0, text.index(f" is: {one}." if form == "multi_value" else f"VAR {one} = "))
        assert 0 <= depth <= 1 and abs(depth * (GAP / 3 * 5) - start) < 0.2 * LENGTH


@pytest.mark.parametrize("form", FORMS)
def test_what_is_planted_stands_nowhere_else(form, made, tmp_path):
    low = 1000
    crowded = tmp_path / "numbers.txt"
    crowded.write_text("".join(f"{number} amber anchor, " for number in range(low, low + 4500)))
    source = made(form, text=crowded, digits=4)
    for text, _, _ in read(source, source.sample(100, LENGTH, generator("test"))):
        hay = re.sub(r"\n(The special magic number for|VAR) [^\n]*\.\n|\n[^\n]*:$", "|", text)
        planted = set(re.findall(r"\d{4}", text)) - set(re.findall(r"\d{4}", hay))
        values = re.findall(r"\n(?:The special magic number for [a-z ]+ is: |VAR \w+ = )(\d+)\.", text)
        assert set(values) <= planted and values
        assert "amber anchor" not in "".join(re.findall(r"number for ([a-z ]+) is", text))


def test_a_text_that_holds_every_key_is_refused(made, tmp_path, monkeypatch):
    monkeypatch.setattr("dsa.data.forms.every_key", lambda evaluation: ["amber anchor", "amber basket"])
    path = tmp_path / "keys.txt"
    path.write_text("amber anchor, amber basket. " * 1000)
    with pytest.raises(ValueError, match=r"in 100 draws the text .* held a key or value of the row by chance"):
        made("single", text=path).sample(1, 512, generator("test"))


@pytest.mark.slow
def test_training_and_evaluation_share_neither_keys_nor_names_nor_text(made):
    amounts = Amounts(3, 4, 2, 7)
    for form in FORMS.values():
        ours, theirs = (
            {word for i in range(200) for word in form(amounts, evaluation, generator(i)).words if not word.isdigit()}
            for evaluation in (False, True)
        )
        assert len(ours) > 100 and len(theirs) > 50 and not ours & theirs
    source = made("single")
    lines = [
        {int(n) for text, *_ in read(source, batch) for n in re.findall(r"Line (\d+) of a", text)}
        for batch in (source.sample(200, LENGTH, generator("test")), source.evaluation(200, LENGTH))
    ]
    assert max(lines[0]) < min(lines[1])


@pytest.mark.slow
def test_rows_follow_from_the_seed_and_evaluation_is_the_same_for_every_seed(made):
    def module(seed):
        return DataModule(made("mixture"), LENGTH, batch_size=4, eval_batches=2, seed=seed, eval_batch_size=6)

    one, same, other = module(0), module(0), module(1)
    assert torch.equal(one.batch("dense", 3).tokens, same.batch("dense", 3).tokens)
    assert not torch.equal(one.batch("dense", 3).tokens, one.batch("dense", 4).tokens)
    assert not torch.equal(one.batch("dense", 3).tokens, other.batch("dense", 3).tokens)
    parts = [one.batch("dense", 3, rank, 2) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.depth for part in parts]), one.batch("dense", 3).depth)
    for a, b in zip(one.eval_loader(), other.eval_loader(), strict=True):
        assert torch.equal(a.tokens, b.tokens) and torch.equal(a.depth, b.depth) and a.depth.shape == (6,)


def test_chance_is_that_of_one_who_has_read_the_question_alone(made):
    number, name = math.log(9 * 10**6), math.log(26**5 / 2)
    assert made("single").chance_loss == pytest.approx(number / 8)
    assert made("two_needle").unigram_loss == pytest.approx(number / 8)
    assert made("multi_value", values=3).chance_loss == pytest.approx(3 * number / (3 * 9 - 1))
    assert made("variable", hops=1).chance_loss == pytest.approx(2 * name / 13)
    assert made("single", digits=5).chance_loss == pytest.approx(math.log(90_000) / 6)


def test_fingerprints_follow_all_that_shapes_rows(made):
    sources = [
        made(),
        made("single"),
        made(distractors=2),
        made(digits=6),
        made(gap=9),
        made(tokenizer=BPETokenizer(300)),
    ]
    assert len({source.fingerprint for source in sources}) == len(sources)
    assert made().fingerprint == sources[0].fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "triple"}, r"data\.form = triple: give single, multi_key, .* or mixture"),
        ({"distractors": -1}, r"data\.distractors = -1: "),
        ({"values": 1}, r"data\.values = 1: give a whole number from 2"),
        ({"hops": 0}, r"data\.hops = 0: "),
        ({"digits": 19}, r"data\.digits = 19: give 18 at most"),
        ({"digits": 3}, r"data\.digits = 3: .*shorter numbers stand in any text"),
        ({"gap": 0}, r"data\.gap = 0: "),
        (
            {"distractors": 40},
            r"data\.form = multi_key: .* data\.gap = 384, .* of seq_len = 1024 .* a smaller data\.gap, or",
        ),
        ({"gap": 900}, r"data\.form = multi_key: .* data\.gap = 900, .* leave 117 of seq_len = 1024"),
        ({"distractors": 30}, r"data\.form = multi_key: .* fewer data\.distractors"),
        ({"distractors": 256}, r"data\.distractors = 256: give 255 at most"),
    ],
)
def test_impossible_settings_name_themselves(made, settings, message):
    with pytest.raises(ValueError, match=message):
        made(**settings).check(LENGTH)


@pytest.mark.slow
def test_the_shortest_row_that_is_allowed_can_be_made(made):
    source = made("mixture", gap=1)

    def fits(seq_len):
        try:
            source.check(seq_len)
        except ValueError:
            return False
        return True

    shortest = next(seq_len for seq_len in range(100, LENGTH) if fits(seq_len))
    for text, answer, _ in read(source, source.sample(300, shortest, generator("test"))):
        assert solved(text) == answer


@pytest.mark.slow
def test_a_models_own_tokenizer_reads_the_rows(made, novel, tmp_path):
    learned = BPETokenizer(400)
    learned.fit([novel.read_text()])
    (tmp_path / "tokenizer.json").write_text(learned.state())
    (tmp_path / "config.json").write_text('{"eos_token_id": 0}')
    (tmp_path / "model.safetensors").touch()
    source = made("mixture", ModelTokenizer(str(tmp_path)))
    assert source.vocab_size == 400
    for text, answer, _ in read(source, source.evaluation(20, LENGTH)):
        assert solved(text) == answer


def right(batch, but=()):
    """Logits that give the targets, except at these (row, position)."""
    wanted = batch.targets.clamp(min=0)
    for row, position in but:
        wanted[row, position] = (wanted[row, position] + 1) % 256
    return torch.nn.functional.one_hot(wanted, 256).float() * 50


def test_exact_match_needs_every_token_of_the_answer_and_no_other(made):
    batch = made("multi_value").evaluation(20, LENGTH)
    metrics = EvalMetrics()
    metrics.update(right(batch), batch)
    assert metrics.compute()["exact_match"] == 1.0
    metrics.reset()
    metrics.update(right(batch, [(0, 5), (1, 600)]), batch)  # where nothing is asked
    assert metrics.compute()["exact_match"] == 1.0
    metrics.reset()
    wrong = [(0, LENGTH - 1), (3, LENGTH - 20), (3, LENGTH - 2)]
    metrics.update(right(batch, wrong), batch)
    values = metrics.compute()
    assert values["exact_match"] == pytest.approx(18 / 20)
    assert values["accuracy"] == pytest.approx(1 - 3 / (20 * 35))


def test_exact_match_is_told_by_depth_too(made):
    batch = made("single").evaluation(50, LENGTH)._replace(depth=torch.arange(50) / 49)
    metrics = EvalMetrics()
    metrics.update(right(batch, [(row, LENGTH - 1) for row in range(10, 15)]), batch)
    values = metrics.compute()
    assert [values[f"exact_match_depth_{part}"] for part in range(1, 6)] == pytest.approx([1.0, 0.5, 1.0, 1.0, 1.0])
    metrics.reset()
    nearest = Batch(batch.tokens[-5:], batch.targets[-5:], depth=batch.depth[-5:])
    metrics.update(right(nearest), nearest)
    assert [name for name in metrics.compute() if "depth" in name] == ["exact_match_depth_5"]


def test_where_rows_have_no_answer_of_their_own_there_is_no_exact_match(made):
    batch = made("single").evaluation(4, LENGTH)._replace(depth=None)
    metrics = EvalMetrics()
    metrics.update(right(batch), batch)
    assert not [name for name in metrics.compute() if "exact" in name]


def test_each_row_is_told_by_itself_in_the_order_of_the_rows(made):
    """The second batch comes first, as from another process."""
    whole = made("single").evaluation(6, LENGTH)._replace(depth=torch.arange(6) / 5)
    metrics = EvalMetrics()
    for rows in (slice(3, 6), slice(0, 3)):
        part = Batch(whole.tokens[rows], whole.targets[rows], depth=whole.depth[rows])
        metrics.update(right(part, [(1, LENGTH - 1)] if rows.start else []), part, rows.start)
    values, samples = metrics.compute(), metrics.samples()
    assert samples["exact_match"] == [1, 1, 1, 1, 0, 1] and samples["depth"] == pytest.approx(
        [0, 0.2, 0.4, 0.6, 0.8, 1]
    )
    answers = (whole.targets != IGNORE).sum(1)
    assert samples["loss"][4] == pytest.approx(50 / int(answers[4])) and max(samples["loss"][:4]) < 1e-6
    assert sum(samples["loss"]) / 6 == pytest.approx(values["loss"], rel=1e-3), "answers of one length"
    metrics.reset()
    assert metrics.samples() == {}


@pytest.mark.slow
def test_a_run_tells_exact_match_of_all_that_it_compares_by_depth_too(outputs, novel):
    own = ["data=retrieval", "data.source.corpus._target_=dsa.data.TextFiles", f"+data.source.corpus.path={novel}"]
    small = [override for override in SMALL if override not in ("data=mqar", "seq_len=64")]
    result = train(compose([*small, *QUIET, *own, "data.form=single", "data.eval_batch_size=20", "seq_len=256",
                            "steps=6", "pattern=causal", "selector.k=16", f"output_dir={outputs}"]))  # fmt: skip
    for name in ("val", "dense_val", "base_val", "swap_val", "swap_window"):
        assert 0 <= getattr(result, f"{name}_exact_match") <= getattr(result, f"{name}_accuracy") + 1e-6
        assert set(result.exact_match_by_depth[name]) == set("12345")
        own = result.samples[f"{name}_exact_match"]
        assert sum(own) / len(own) == pytest.approx(getattr(result, f"{name}_exact_match")) and len(own) >= 20
    assert len(result.samples["depth"]) == len(result.samples["swap_val_loss"])
    assert len((Path(result.folder) / "result.json").read_bytes()) < 40_000
    frame = load_study(Path(result.folder).parent)
    assert frame.loc[0, "swap_val_exact_match"] == result.swap_val_exact_match
    assert frame.loc[0, "exact_match_by_depth.swap_val.1"] == result.exact_match_by_depth["swap_val"]["1"]


def test_where_text_teaches_rows_hold_nothing_planted_and_ask_for_every_token(made):
    asked, taught = made(), made(learn="text")
    own, rows = (source.sample(4, LENGTH, generator("rows")) for source in (asked, taught))
    assert (own.targets == IGNORE).any() and not (rows.targets == IGNORE).any()
    assert rows.tokens[:, 1:].equal(rows.targets[:, :-1])
    texts = [taught.tokenizer.decode(row) for row in rows.tokens.tolist()]
    assert all("special magic number" not in text for text in texts)
    whole = taught.tokenizer.decode(taught.train.tolist())
    assert all(text in whole for text in texts) and len(set(texts)) == 4
    for one, other in zip(asked.evaluation(3, LENGTH), taught.evaluation(3, LENGTH), strict=True):
        assert one is other is None or one.equal(other)
    assert asked.fingerprint != taught.fingerprint
    with pytest.raises(ValueError, match=r"data\.learn = facts: give questions or text"):
        made(learn="facts")
