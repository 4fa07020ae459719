"""The indexer that a study recommends at the length at hand: it stands for that one, and is none itself."""

import json
from pathlib import Path
from typing import Any

from dsa.artifacts.files import CONFIG, STUDY, VERDICT
from dsa.artifacts.names import check_folders
from dsa.artifacts.results import read_result
from dsa.checks import one_of, text
from dsa.config import read_config
from dsa.indexers.base import Indexer

SCHEMA = 2
ACCEPT = ("shown", "best")
ANALYSE = "`python -m dsa.analysis outputs/<study>` writes it"


class ByLengthIndexer(Indexer):
    """Stands for the indexer of the condition that a study's verdict recommends at this length, with all its settings.

    The study's folder is read as its analysis left it: the recommendation from verdict.json, the condition's runs at
    this length from the study.json beside it, the indexer from the configuration of the first of these runs. A
    condition's pattern, selector and precision are not taken. Settings, in a yaml:

        verdict: path of the verdict.json, of schema 2.
        accept: shown: only what was shown to lose nothing, or a baseline beside such if nothing is shown to beat it;
            best: also a baseline that another is shown to beat, and what was only the best measured.
    """

    @classmethod
    def stands_for(cls, settings: dict[str, Any], seq_len: int) -> tuple[str, dict[str, Any]]:
        """Option and settings of the recommended indexer.

        Raises:
            ValueError: the file is no verdict, it recommends nothing that is accepted at this length, or the run of
                what it recommends is gone.
        """
        if settings.get("verdict") is None:
            raise ValueError(f"indexer.verdict = null: give the path of a study's {VERDICT}; {ANALYSE}.")
        path = Path(text(settings["verdict"], "indexer.verdict"))
        label = recommended(path, seq_len, one_of(settings.get("accept"), ACCEPT, "indexer.accept"))
        return indexer_of(path, label, seq_len)


def recommended(path: Path, seq_len: int, accept: str) -> str:
    """The condition that a verdict recommends at a length.

    Raises:
        ValueError: see `ByLengthIndexer`.
    """
    verdict = content(path)
    if verdict.get("schema") != SCHEMA:
        raise ValueError(
            f"indexer.verdict = {path}: schema {verdict.get('schema')}; give a {VERDICT} of schema {SCHEMA}: {ANALYSE}."
        )
    answers = [one for one in verdict["best"] if one["seq_len"] == seq_len]
    if not answers:
        lengths = ", ".join(str(length) for length in sorted({one["seq_len"] for one in verdict["best"]})) or "none"
        raise ValueError(f"indexer.verdict = {path}: it says nothing of seq_len = {seq_len}; its lengths: {lengths}.")
    if len(answers) > 1:
        contexts = ", ".join(one["context"] for one in answers)
        raise ValueError(
            f"indexer.verdict = {path}: it answers for several contexts at {seq_len} ({contexts}); give the verdict of "
            "a study of one model and data."
        )
    answer = answers[0]
    if answer["recommended"] is None:
        raise ValueError(f"indexer.verdict = {path}: it recommends nothing. {answer['sentence']}")
    if accept == "shown" and not answer["shown"]:
        raise ValueError(
            f"indexer.verdict = {path}: what it recommends is not shown to lose nothing. "
            f"{answer['sentence']} "
            "Give indexer.accept=best to take it nevertheless."
        )
    return str(answer["recommended"])


def indexer_of(path: Path, label: str, seq_len: int) -> tuple[str, dict[str, Any]]:
    """Option and settings of the indexer with which a study ran a condition at a length.

    Args:
        path: of the study's verdict.

    Raises:
        ValueError: no finished run of it is there, or it has no indexer.
    """
    plan = content(path.with_name(STUDY))
    check_folders(plan, path.with_name(STUDY))
    for run in plan["runs"]:
        if (run["label"], run["seq_len"]) != (label, seq_len) or not run.get("run_id"):
            continue
        for study in (path.parent, path.parent.parent / str(run.get("study") or "")):
            folder = study / run["run_id"]
            result = read_result(folder)
            if result is None or result.status != "finished" or not (folder / CONFIG).exists():
                continue
            option = result.condition["indexer"]
            if option == "none":
                raise ValueError(f"indexer.verdict = {path}: it recommends {label} at {seq_len}, which has no indexer.")
            return option, read_config(folder / CONFIG)["indexer"]
    raise ValueError(
        f"indexer.verdict = {path}: it recommends {label} at {seq_len}, of which no finished run with its "
        f"{CONFIG} lies beside it; give the verdict in the study's own folder, outputs/<study>."
    )


def content(path: Path) -> dict[str, Any]:
    """What a JSON file of a study holds.

    Raises:
        ValueError: it is not there, or no such file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"indexer.verdict: {path} cannot be read ({error.strerror}); {ANALYSE}.") from error
    except ValueError as error:
        raise ValueError(f"indexer.verdict: {path} is no JSON ({error}); give a study's {VERDICT}.") from error
    if not isinstance(value, dict) or not isinstance(value.get("runs" if path.name == STUDY else "best"), list):
        raise ValueError(f"indexer.verdict: {path} holds no study's verdict or plan; {ANALYSE}.")
    return value
