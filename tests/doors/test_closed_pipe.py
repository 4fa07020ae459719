"""A program that reads a command's output may stop: `dsa train --help | head -1`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def unread(*line: str) -> tuple[int, str]:
    """Status and errors of a command whose output nobody reads."""
    end, begin = os.pipe()
    os.close(end)
    with os.fdopen(begin, "w") as pipe:
        done = subprocess.run([sys.executable, *line], stdout=pipe, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "train.py --help", "train.py --cfg job", "sweep.py --help", "-m dsa.doors.command",
        "-m dsa.doors.command train --help", "-m dsa.doors.command report --help", "-m dsa.study --help",
        "-m dsa.analysis --help", "-m dsa.bench --help", "-m dsa.doors.compare --help",
    ],
)  # fmt: skip
def test_a_command_whose_reader_is_gone_ends_quietly(line):
    status, errors = unread(*line.split())
    assert (status in (0, 141), errors) == (True, ""), status  # argparse overlooks it
