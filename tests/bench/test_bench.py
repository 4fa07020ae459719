"""The bench command: rows, table, plot; figures that can be checked by hand."""

import importlib
import itertools
import json
import runpy
import sys

import pytest
import torch

from dsa.backbones import SparseTransformer
from dsa.bench import attention, measure, peers, report, train
from dsa.bench.__main__ import main
from dsa.bench.layer import Layer
from dsa.ops import native
from dsa.ops.cost import attention_flops, kept_pairs

COLUMNS = {"length", "component", "direction", "ms", "dense_ms", "ratio", "peak_mb", "dense_peak_mb", "flops",
           "gflops_per_s", "machine"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["blocked"])
def test_attention_prints_a_table_and_writes_rows_and_a_plot(tmp_path, capsys, backend):
    path = tmp_path / "speed.json"
    main(f"attention --lengths 64,128 --k 16 --heads 2 --dim 8 --backend {backend} --rounds 1 --json {path}".split())
    rows = json.loads(path.read_text())
    kinds = {(row["length"], row["component"], row["direction"]) for row in rows}
    parts = ("select", "attend", "loss", "total")
    assert kinds == {(n, part, way) for n in (64, 128) for part in parts for way in ("forward", "train")}
    assert all(set(row) >= COLUMNS for row in rows)
    assert all(row["ratio"] == row["dense_ms"] / row["ms"] for row in rows)
    assert (tmp_path / "speed.png").stat().st_size > 10_000
    assert "x dense" in capsys.readouterr().out
    (tmp_path / "speed.png").unlink()
    main(["draw", str(path)])
    assert (tmp_path / "speed.png").stat().st_size > 10_000


@pytest.mark.slow
def test_selecting_is_timed_in_number_formats_beside_float32(tmp_path):
    path = tmp_path / "formats.json"
    main(f"attention --lengths 64 --k 16 --heads 2 --dim 8 --rounds 1 --formats int8,int4 --json {path}".split())
    rows = {(row["component"], row["direction"]): row for row in json.loads(path.read_text())}
    assert {("select int8", "forward"), ("select int4", "forward"), ("select", "forward")} <= set(rows)
    assert all(row["ms"] > 0 for row in rows.values())


@pytest.mark.slow
def test_train_splits_a_step_into_parts_that_make_the_whole(tmp_path):
    path = tmp_path / "train.json"
    main(f"train --model mqar --lengths 64 --batch 2 --k 16 --rounds 1 --json {path}".split())
    rows = {row["component"]: row["ms"] for row in json.loads(path.read_text())}
    assert set(rows) == {"indexer", "select", "attend", "indexer_loss", "rest", "total"}
    assert min(rows.values()) > 0
    assert sum(rows.values()) == pytest.approx(2 * rows["total"], rel=0.05)


@pytest.mark.slow
def test_whole_steps_of_several_models_and_numbers_of_rows_are_a_line_and_a_panel_each(tmp_path, capsys):
    path = tmp_path / "steps.json"
    main(f"train --model mqar,tiny --batch 1,2 --lengths 32 --k 8 --rounds 1 --dtype fp32 --json {path}".split())
    rows = json.loads(path.read_text())
    assert all(row["dtype"] == "float32" and row["dense_ms_by_dtype"] == {"float32": row["dense_ms"]} for row in rows)
    kinds = {(row["model"], row["rows"], row["length"]) for row in rows}
    assert kinds == {(model, batch, 32) for model in ("mqar", "tiny") for batch in (1, 2)}
    told = capsys.readouterr().out.splitlines()
    for model, batch in itertools.product(("mqar", "tiny"), (1, 2)):
        (line,) = [line.split() for line in told if line.split()[1:4:2] == [model, str(batch)]]
        own = {row["component"]: row for row in rows if (row["model"], row["rows"]) == (model, batch)}
        assert f"{own['total']['ms']:.1f}" in line and f"{own['indexer_loss']['ms']:.1f}" in line
    titles = [axis.get_title().split(": ")[-1] for axis in report.drawn(rows, "train").axes]
    assert titles == ["mqar, 1 rows", "mqar, 2 rows", "tiny, 1 rows", "tiny, 2 rows"]


@pytest.mark.slow
def test_a_whole_step_is_measured_in_the_format_that_it_is_asked_in(tmp_path, monkeypatch):
    seen, path, run = [], tmp_path / "x.json", SparseTransformer.run

    def watched(model, tokens, how):
        seen.append(torch.is_autocast_enabled("cpu"))
        return run(model, tokens, how)

    monkeypatch.setattr(SparseTransformer, "run", watched)
    main(f"train --model mqar --batch 1 --lengths 32 --k 8 --rounds 1 --dtype bf16 --json {path}".split())
    assert all(seen) and not torch.is_autocast_enabled("cpu")
    assert {row["dtype"] for row in json.loads(path.read_text())} == {"bfloat16"}


@pytest.mark.slow
def test_compiled_layers_are_measured_beside_layers_that_are_not(tmp_path, monkeypatch):
    compiled, stepped, path, make = [], {}, tmp_path / "x.json", train.last_step
    monkeypatch.setattr(SparseTransformer, "compile_layers", lambda model: compiled.append(id(model)))

    def noted(spec, model, data, batch, sparse, device):
        stepped[id(model)] = sparse
        return make(spec, model, data, batch, sparse, device)

    monkeypatch.setattr(train, "last_step", noted)
    main(f"train --model mqar --batch 1 --lengths 32 --k 8 --rounds 1 --compile --json {path}".split())
    assert sorted(stepped.values()) == [False, False, True, True]
    assert sorted(stepped[one] for one in compiled) == [False, True]
    rows = {row["component"]: row for row in json.loads(path.read_text())}
    assert rows["total"]["dense_ms"] != rows["not compiled"]["dense_ms"] and rows["not compiled"]["ratio"] > 0


@pytest.mark.slow
def test_train_measures_what_a_step_holds_where_layers_are_recomputed(tmp_path):
    peaks = []
    for memory in ("", "checkpoint,offload"):
        main(["train", *"--lengths 256 --k 16 --batch 1 --rounds 1 --json".split(), str(tmp_path / "x.json"),
              "--memory", memory])  # fmt: skip
        rows = {row["component"]: row["peak_mb"] for row in json.loads((tmp_path / "x.json").read_text())}
        peaks.append(rows["total"])
    assert set(rows) == {"total"} and peaks[1] < 0.9 * peaks[0]


def lines(axis):
    return {line.get_label(): line for line in axis.get_lines() if not line.get_label().startswith("_")}


@pytest.mark.slow
def test_each_panel_names_its_lines_with_their_dtype_and_says_why_the_loss_jumps():
    machine = {"processor": "x", "threads": 2, "torch": "2", "load": 0.0}
    times = {"select": 1.0, "attend": 5.0, "loss": 1.0, "total": 8.0}
    rows = [
        {"length": length, "component": part, "direction": way, "ms": ms * length / 1024, "dense_ms": 12.0 * scale**2,
         "dense_ms_by_dtype": {"float32": 12.0 * scale**2, "bfloat16": 6.0 * scale**2}, "machine": machine}
        | ({"mass_kept": length < 32768} if part == "loss" else {})
        for length, scale in ((1024, 1), (32768, 32)) for way in ("forward", "train") for part, ms in times.items()
    ]  # fmt: skip
    figure = report.drawn(rows, "attention")
    forward, train = figure.axes
    dense = {"dense (float32)", "dense (bfloat16)"}
    assert lines(forward).keys() == {"select (float32)", "attend (float32)", "sparse, all of it (float32)"} | dense
    assert lines(train).keys() == lines(forward).keys() | {"loss (float32)"}
    assert list(lines(train)["dense (bfloat16)"].get_ydata()) == [6.0, 6.0 * 32**2]
    assert list(lines(train)["sparse, all of it (float32)"].get_ydata()) == [8.0, 256.0]
    hollow = [line for line in train.get_lines() if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in hollow] == [[32768]]
    assert report.WITHOUT_MASS in [text.get_text() for text in figure.texts]
    assert "pays from 1," in train.texts[0].get_text()
    kept = report.drawn([row | {"mass_kept": True} for row in rows], "attention")
    assert report.WITHOUT_MASS not in [text.get_text() for text in kept.texts]


@pytest.mark.skipif(native.unavailable() is not None, reason="no compiler")
def test_the_loss_has_no_probabilities_to_use_where_they_would_take_too_much_memory(monkeypatch):
    attending = importlib.import_module("dsa.ops.native.attend")
    monkeypatch.setattr(attending, "KEPT_MASS", 64 * 16 * 4)
    layer = Layer(k=16, index=(1, 8), heads=1, kv_heads=1, dim=8, backend="cpu")
    assert [attention.mass_kept(length, layer) for length in (64, 65)] == [True, False]


def test_peak_memory_counts_what_is_allocated_beyond_the_results():
    def work():
        first = torch.empty(1_000_000)
        second = torch.empty(500_000)
        del first
        return [second]

    assert measure.peak_memory(work) == pytest.approx(4e6, rel=0.01)


def test_works_take_turns_and_the_median_counts():
    calls = []
    times = measure.take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2)
    assert calls == ["a", "b"] * 3  # the first round warms up
    assert set(times) == {"a", "b"}


def test_the_break_even_is_where_the_ratio_crosses_one():
    assert report.break_even([1024, 4096], [0.5, 1.5]) == pytest.approx(2048)
    assert report.break_even([1024, 4096], [0.5, 0.9]) is None
    assert report.break_even([1024, 4096], [2.0, 4.0]) is None


def test_operations_are_counted_by_the_cost_formulas():
    costs = attention.costs(100, Layer(k=10, index=(1, 8), heads=2, kv_heads=2, dim=4, batch=3))
    assert costs["attend/forward"] == 3 * attention_flops(2, 4, kept_pairs(100, 10))
    assert costs["attend/train"] == 3 * costs["attend/forward"]
    assert costs["select/forward"] == 3 * (2 * 8 + 3) * 5050


def test_without_transformers_the_peers_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers.models.deepseek_v32", None)
    with pytest.raises(SystemExit, match="pip install 'transformers"):
        peers.works(32, Layer(4, (1, 8), 2, 2, 8))


def test_a_cohort_is_timed_together_and_apart(tmp_path, capsys):
    rows = tmp_path / "rows.json"
    main(
        ["cohort", "--model", "mqar", "--length", "32", "--indexers", "h1d8,h2d8", "--rounds", "5", "--json", str(rows)]
    )
    found = {row["what"]: row for row in json.loads(rows.read_text())}
    assert set(found) == {"forward pass of the base", "step, together", "together, as products", "steps, apart"}
    assert (
        found["forward pass of the base"]["ms"] < found["step, together"]["ms"] and found["step, together"]["of"] == 1
    )
    assert found["step, together"]["indexers"] == 2 and "2 indexers" in capsys.readouterr().out


def test_the_parts_of_a_judgement_are_timed(tmp_path):
    rows = tmp_path / "rows.json"
    small = ["model=mqar", "data=mqar", "data.eval_batches=1", "data.eval_batch_size=4", "seq_len=32", "selector.k=4"]
    main(["judgement", *small, "data.pairs=2", "data.gap=8", "pattern=causal", "--rounds", "1", "--json", str(rows)])
    found = {row["what"]: row["ms"] for row in json.loads(rows.read_text())}
    assert set(found) == {"routers", "evaluation", "probe", "whole"}
    assert found["whole"] > max(found["evaluation"], found["probe"]) / 2, "it has both; other work may delay either"


@pytest.mark.slow
def test_what_six_indexers_and_a_judgement_cost_on_a_model_of_your_own_is_told_at_once(tmp_path, capsys):
    rows = tmp_path / "rows.json"
    small = ["model=mqar", "data=mqar", "data.eval_batches=1", "data.eval_batch_size=4", "seq_len=32", "selector.k=4"]
    main(["pretrained", *small, "data.pairs=2", "data.gap=8", "dtype=bf16", "--rounds", "1", "--json", str(rows)])
    found = {row["what"]: row for row in json.loads(rows.read_text())}
    assert set(found) >= {"forward pass of the base", "step, together", "steps, apart", "evaluation", "probe", "whole"}
    assert found["step, together"]["indexers"] == 6 and found["step, together"]["peak_mb"] > 0
    assert "cohort: mqar, bf16, 32 tokens" in capsys.readouterr().out


def test_a_token_of_decoding_is_timed_beside_a_dense_one_and_what_it_reads_is_counted(tmp_path, capsys):
    path = tmp_path / "decode.json"
    small = "--lengths 64,96 --k 16 --heads 4 --kv-heads 2 --dim 8 --indexer h1d4 --rounds 2"
    main(f"decode {small} --json {path}".split())
    rows = {(row["length"], row["component"]): row for row in json.loads(path.read_text())}
    assert set(rows) == {(length, part) for length in (64, 96) for part in ("cache", "select", "attend", "total")}
    whole = rows[96, "total"]
    assert whole["ms"] > max(rows[96, part]["ms"] for part in ("cache", "select", "attend")) * 0.5
    assert whole["dense_bytes_read"] == 96 * 2 * 2 * 8 * 4, "keys and values of two heads of 8 dims in float32"
    assert whole["bytes_read"] == 96 * 4 * 4 + 16 * 2 * 2 * 8 * 4, "every index key, and 16 keys and values"
    assert whole["bytes_held"] - whole["dense_bytes_held"] == 96 * 4 * 4
    assert "x dense" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--kv-heads 3: give a divisor of the 4 heads"):
        main("decode --heads 4 --kv-heads 3".split())


@pytest.mark.slow
def test_in_bf16_with_shared_heads_the_peers_compute_the_same_attention(tmp_path):
    path, small = tmp_path / "x.json", "--lengths 64 --k 16 --heads 4 --dim 8 --indexer h1d8 --rounds 1 --dtype bf16"
    main(f"attention {small} --kv-heads 2,4 --peers --json {path}".split())
    for kv_heads in (2, 4):
        rows = json.loads((tmp_path / f"x-kv{kv_heads}.json").read_text())
        found = {(row["component"], row["direction"]) for row in rows}
        assert {("flex", "forward"), ("transformers", "forward"), ("transformers", "train")} <= found
        assert {row["dtype"] for row in rows} == {"bfloat16"}
        assert {tuple(row["dense_ms_by_dtype"]) for row in rows} == {("bfloat16",)}
        assert f"{kv_heads} key/value heads" in rows[0]["title"]
    with pytest.raises(SystemExit, match="--kv-heads 3: give a divisor of the 4 heads"):
        main(f"attention {small} --kv-heads 3".split())


@pytest.mark.slow
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_flex_attention_attends_to_the_same_selection(kv_heads):
    layer = Layer(k=9, index=(1, 8), heads=4, kv_heads=kv_heads, dim=16, batch=2)
    ours = attention.sparse_works(150, layer)["total/forward"]()[0]
    (theirs,) = peers.flex_works(150, layer)["flex/forward"]()
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_a_peer_without_room_for_its_pairs_is_left_out():
    layer = Layer(k=9, index=(1, 8), heads=32, kv_heads=4, dim=16, dtype=torch.bfloat16)
    assert peers.ROOM < 2**17 * 2**17 * 32 * 2, "at 131072 tokens the logits alone would take more"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "ROOM", 64 * 64 * 100)
        assert set(peers.works(64, layer)) == {"flex/forward"}
        patch.setattr(peers, "ROOM", 64 * 64 - 1)
        assert not peers.works(64, layer)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("what", ["attention", "train", "memory"])
def test_without_a_cuda_device_that_is_said_in_a_sentence(what, capsys):
    with pytest.raises(SystemExit):
        main([what, "--device", "cuda"])
    assert "argument --device: there is no CUDA device here; give --device cpu." in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["attention --k 0", "attention --lengths 64,-5", "attention --kv-heads 0", "decode --rounds 0", "decode --heads x",
     "attention --indexer h0d8", "train --batch 0", "memory --batch 1.5"],
)  # fmt: skip
def test_what_is_no_number_from_one_is_refused_before_anything_is_measured(line, capsys):
    with pytest.raises(SystemExit):
        main(line.split())
    said = "give heads and dims" if "--indexer" in line else "give a whole number from 1."
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("what", ["attention", "decode"])
def test_a_backend_that_is_not_there_or_cannot_run_is_refused_before_anything_is_measured(what, capsys):
    with pytest.raises(SystemExit):
        main([what, "--backend", "foo"])
    assert "argument --backend: ops = foo: no such backend" in capsys.readouterr().err


def test_what_a_setting_refuses_ends_in_its_sentence(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dsa.bench", "cohort", "--indexers", "h9d9"])
    with pytest.raises(SystemExit, match=r"^error: indexer = h9d9: no such option\. Give one of"):
        runpy.run_module("dsa.bench", run_name="__main__")
