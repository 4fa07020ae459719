"""What Weights & Biases is told, read back from the offline file, against docs/wandb.md."""

import json
import re
import struct
import sys
import time
from pathlib import Path

import pytest
from conftest import SMALL

from dsa import compose, train
from dsa.training.loggers import TensorBoardLogger, WandbLogger, wandb_id

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def records(folder: Path):
    """Every record of a run's offline file; W&B writes it in a process of its own, which may lag behind."""
    until = time.monotonic() + 30
    while True:
        found = read_now(folder)
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < until, "the run was never finished"
        time.sleep(0.1)


def read_now(folder: Path):
    """The records that are there."""
    from wandb.proto import wandb_internal_pb2

    content = next(folder.glob("wandb/offline-run-*/run-*.wandb")).read_bytes()
    found = []
    for data in chunks(content):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        found.append(record)
    return found


def chunks(content: bytes):
    """LevelDB's log format behind a header of 7 bytes: blocks of 32 KiB, chunks of checksum, length, type and data."""
    position, parts = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wandb")
    result = train(
        compose([*SMALL, "logger=wandb", "logger.mode=offline", "callbacks.progress_bar=false", "callbacks.val_every=2",
                 "callbacks.maps_every=4", "steps=30", "indexer.dim=8", "pattern=causal", "selector.k=8",
                 f"output_dir={folder}"])
    )  # fmt: skip
    return result, records(Path(result.folder))


def test_identity_and_flat_configuration(run):
    result, found = run
    (start,) = [r.run for r in found if r.WhichOneof("record_type") == "run"]
    assert start.run_id == wandb_id(f"runs-{result.run_id}")
    assert start.display_name == result.run_id
    assert (start.run_group, start.job_type) == ("runs", "run")
    assert {"L64", "seed0", "indexer:h2d32~", "pattern:causal"} <= set(start.tags)
    config = {update.key: json.loads(update.value_json) for update in start.config.update}
    assert config["indexer"] == "h2d32~"  # a value inside was overridden
    assert config["precision"] == "fp32"
    assert config["seq_len"] == 64
    assert config["seed"] == 0
    assert config["run_id"] == result.run_id
    assert {kind: config[kind] for kind in ("base", "indexers", "joint")}.items() <= result.artifacts.items()
    assert "git" in config


def keys(found, kind):
    """Names of what a run keeps in its history or in its summary."""
    rows = [getattr(r, kind) for r in found if r.WhichOneof("record_type") == kind]
    items = [item for row in rows for item in (row.item if kind == "history" else row.update)]
    return {"/".join(item.nested_key) or item.key for item in items}


def named(text):
    """The metrics that a part of a page names, a cohort's without its indexer."""
    found = re.findall(r"`([a-z]+/[a-z_/0-9]+)`", text)
    return {re.sub(r"^(warmup/\w+)/h\d+d\d+$", r"\1", name) for name in found}


ELSEWHERE = {"val/recall_slice_loss", "val/swap_sink_window_loss"}  # of text alone; of a pretrained model alone


def test_every_documented_metric_is_there_and_every_metric_is_documented(run):
    _, found = run
    logged, final = keys(found, "history"), keys(found, "summary")
    names = {re.sub(r"^select/map/.*", "select/map", name) for name in logged | final if not name.startswith("_")}
    generic = {re.sub(r"layer_\d+", "layer_00", name) for name in names}
    documented = set(re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "wandb.md").read_text(), re.MULTILINE))
    assert generic - documented == set()
    assert {name for name in documented - generic if "exact_match" not in name} <= ELSEWHERE | {"reason"}


def test_what_a_page_calls_a_curve_has_a_history_and_what_it_calls_a_final_value_is_in_the_summary(run):
    _, found = run
    logged, final = keys(found, "history"), keys(found, "summary")
    page = (ROOT / "docs" / "wandb.md").read_text()
    curves, values = page.split("## While it trains\n")[1].split("## In the summary of a finished run\n")
    tables = [set(re.findall(r"^\| `([^`]+)` \|", part.split("\n## ")[0], re.MULTILINE)) for part in (curves, values)]
    tables = [{name for name in table if "exact_match" not in name} for table in tables]  # of retrieval alone
    assert tables[0] - logged <= ELSEWHERE | {"select/map"}, "a picture"
    assert tables[1] - final - ELSEWHERE - {"reason"} == set()
    lines, _, rest = (ROOT / "README.md").read_text().split("\n2. *Add panel")[1].partition("Scatter plot")
    assert len(named(lines)) >= 3 and named(lines) <= logged
    points = named(rest.split("\n3. ")[0])
    assert points >= {"val/swap_loss", "select/mass"} and points <= final


def test_every_metric_that_another_page_names_is_written(run):
    _, found = run
    written = keys(found, "history") | keys(found, "summary")
    stages = {"sparse", "dense", "warmup", "val", "select", "cost", "speed", "memory", "stability"}
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in named(page.read_text()):
            alone = re.search(  # of retrieval, a pattern that chooses, an indexer that picks or is shared
                "exact_match|pattern|group_|picked|picker_loss|warmup/indexer_h2d32|balance", name
            )
            if name.split("/")[0] in stages and not alone:  # else a folder
                assert re.sub("^dense/", "sparse/", name) in written | ELSEWHERE | {"select/map"}, page


def test_each_stage_has_its_own_axis(run):
    _, found = run
    axes = {
        r.metric.glob_name or r.metric.name: r.metric.step_metric
        for r in found
        if r.WhichOneof("record_type") == "metric"
    }
    assert axes["warmup/*"] == "warmup/step"
    assert axes["sparse/*"] == "sparse/step"
    assert axes["val/*"] == "step"
    steps = [
        json.loads(item.value_json)
        for r in found
        if r.WhichOneof("record_type") == "history"
        for item in r.history.item
        if "/".join(item.nested_key) == "sparse/step" or item.key == "sparse/step"
    ]
    assert steps == sorted(steps)


def test_the_run_is_finished_and_its_selection_pictured(run):
    result, found = run
    (end,) = [r.exit for r in found if r.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 0
    steps = [int(path.stem[-6:]) for path in sorted(Path(result.folder).glob("maps/selection_*.png"))]
    first = steps[0] - 4
    assert steps == [first + 4, 30] and 4 < 30 - first < 8, "every 4 of joint training's steps, and at its end"


def test_an_outage_never_stops_a_run(tmp_path, monkeypatch, caplog):
    import wandb

    def refuse(**_):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(wandb, "init", refuse)
    mirror = WandbLogger("dsa", None, "online")
    identity = {"id": "x", "name": "x", "group": "g", "job_type": "run", "tags": [], "stages": [], "resumed": False}
    mirror.start(tmp_path, identity, {})
    mirror.log("sparse", 1, 1, {"train/loss": 1.0})
    mirror.finish(failed=False)
    assert "no route to host" in caplog.text
    assert not mirror.farewell()


def test_a_tensorboard_that_is_not_installed_never_stops_a_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    mirror = TensorBoardLogger()
    mirror.start(tmp_path, {}, {})
    mirror.finish(failed=False)
    assert not mirror.farewell()
    assert caplog.text.count("TensorBoardLogger stopped") == 1


def test_an_unreachable_server_is_replaced_by_offline_files(tmp_path, monkeypatch):
    import wandb

    asked = []

    def only_offline(**arguments):
        asked.append((arguments["mode"], arguments["settings"].init_timeout))
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("timed out")
        raise RuntimeError("stop here")

    monkeypatch.setattr(wandb, "init", only_offline)
    mirror = WandbLogger("dsa", None, "online")
    identity = {
        "id": "x",
        "name": "x",
        "group": "g",
        "job_type": "run",
        "tags": ["t" * 99],
        "stages": [],
        "resumed": False,
    }
    mirror.start(tmp_path, identity, {})
    assert asked == [("online", 15), ("offline", 15)]


def test_a_crash_finishes_the_run_as_failed(tmp_path):
    from dsa.training import RunFailed

    with pytest.raises(RunFailed):
        train(
            compose([*SMALL, "logger=wandb", "logger.mode=offline", "callbacks=quiet", "steps=12", "recipe=dense",
                     "recipe.dense.lr=1e30", "recipe.clip=1e30", "optimizer=adam", f"output_dir={tmp_path}"])
        )  # fmt: skip
    found = records(next((tmp_path / "runs").iterdir()))
    (end,) = [r.exit for r in found if r.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 1
    alerts = [r.alert for r in found if r.WhichOneof("record_type") == "alert"]
    assert alerts and "diverged" in alerts[0].text


def test_ids_hold_only_characters_that_are_allowed():
    assert wandb_id("a/b:c#d?e%f~g") == "a-b-c-d-e-f-g"
    assert len(wandb_id("x" * 300)) == 128
