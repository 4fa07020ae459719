"""Programs in processes of their own that need not import torch first: forked from a server that has.

`launch(["python", "train.py", ...])` is as `subprocess.Popen` with one output for both streams: the process has a pid,
gets signals, dies of them, and has an exit status. What it shares with no other start is only the seconds that the
imports take.
"""

import atexit
import functools
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
IMPORTED = ("dsa.doors.train", "dsa.doors.sweep", "dsa.training", "dsa.study.sweep", "dsa.study.conclude",
            "dsa.study.__main__", "dsa.study.workers.job", "dsa.bench.__main__", "hydra._internal.utils",
            "submitit.core.submission", "tensorboard")  # fmt: skip
SERVER = "FORKED_FROM"  # the server's socket: programs that a program starts find it there
START = 400  # seconds in which it must be there; several where many share the machine


class Program:
    """A program that was launched; the part of `subprocess.Popen` that tests use."""

    def __init__(
        self, line: Sequence[str], environment: Mapping[str, str], cwd: Path, session: bool, output: Path | None,
        children: bool,
    ) -> None:  # fmt: skip
        self.returncode: int | None = None
        place = environment.get(SERVER) or server()
        self.connection = connected(place)
        if output is None:
            handle, name = tempfile.mkstemp(dir=Path(place).parent)
            os.close(handle)
            output = Path(name)
        output.touch()
        self.stdout = output.open(errors="replace")
        environment = {**environment, SERVER: place}
        request = {"line": list(line), "environment": environment, "session": session, "output": str(output)}
        self.connection.sendall(json.dumps(request | {"cwd": str(cwd), "children": children}).encode() + b"\n")
        self.pid = int(self.connection.recv(64))

    def poll(self) -> int | None:
        return self.returncode if self.returncode is not None else self.ended(0.0)

    def ended(self, seconds: float | None) -> int | None:
        """The exit status, waited for so many seconds; None if it runs on."""
        self.connection.settimeout(seconds)
        try:
            said = self.connection.recv(64)
        except (TimeoutError, BlockingIOError):
            return None
        self.connection.close()
        self.returncode = int(said or -signal.SIGKILL)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and self.ended(timeout) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """All that it said on both streams."""
        self.wait(timeout)
        self.stdout.seek(0)
        return self.stdout.read(), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def launch(
    line: Sequence[str], environment: Mapping[str, str] = os.environ, cwd: Path = ROOT, session: bool = False,
    output: Path | None = None, children: bool = False,
) -> Program:  # fmt: skip
    """A program in a process of its own.

    Args:
        line: the interpreter, then a script, `-m` a module or `-c` code, and its arguments.
        session: at the head of a process group of its own.
        output: where its words are added; None keeps them for `communicate`.
        children: what it starts as another interpreter is launched so too.
    """
    return Program(line, environment, cwd, session, output, children)


@functools.cache
def server() -> str:
    """The socket of this process's server, which ends with it."""
    folder = tempfile.mkdtemp()
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", f"{folder}/socket"], stdin=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    for end in (lambda: shutil.rmtree(folder, ignore_errors=True), process.wait, process.stdin.close):
        atexit.register(end)  # the last one is called first
    return f"{folder}/socket"


def connected(place: str) -> socket.socket:
    """A connection to the server, which may be importing still."""
    end = time.monotonic() + START
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(place)
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            assert time.monotonic() < end, "the server of forked programs does not start"
            time.sleep(0.02)


def serve(place: str) -> None:
    """Fork a program for each connection, until the one who started this is gone."""
    for name in IMPORTED:
        import_module(name)
    assert threading.active_count() == 1, "a fork would inherit what other threads hold"
    interpreter(place).write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    interpreter(place).chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers need no burial
    os.fsync = lambda fd: None  # nobody cuts the power
    gc.freeze()  # programs need not look again and again at what was imported
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            keep(connection)
        connection.close()


def keep(connection: socket.socket) -> None:
    """Start the program and tell its pid, then its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        become(request)
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):  # nobody may wait for it
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(request: dict[str, Any]) -> None:
    """Go on as the program that is asked for, as a fresh interpreter would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["session"]:
        os.setsid()
    nothing, out = os.open(os.devnull, os.O_RDONLY), os.open(request["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for target, source in ((0, nothing), (1, out), (2, out)):
        os.dup2(source, target)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["children"]:
        sys.executable = str(interpreter(os.environ[SERVER]))
    status = 1
    try:
        status = run(request["line"][1:])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if status == 1 and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)


def run(line: list[str]) -> int:
    """What the interpreter does with its arguments and $PYTHONPATH."""
    import torch
    from lightning_fabric.utilities.rank_zero import _get_rank, rank_zero_only

    rank_zero_only.rank = _get_rank() or 0  # what Lightning asks the environment when it is imported
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    own = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    while line[0] in ("-u", "-W"):
        if line.pop(0) == "-W":
            warnings._processoptions([line.pop(0)])  # type: ignore[attr-defined]
    sys.path[0] = str(Path(line[0]).parent) if line[0] not in ("-m", "-c") else os.getcwd()
    sys.path[1:1] = [part for part in own if part not in sys.path]
    for folder in own:
        if (Path(folder) / "sitecustomize.py").exists():
            runpy.run_path(str(Path(folder) / "sitecustomize.py"))
    if line[0] == "-m":
        sys.argv = line[1:]
        runpy.run_module(line[1], run_name="__main__", alter_sys=True)
    elif line[0] == "-c":
        sys.argv = ["-c", *line[2:]]
        exec(line[1], {"__name__": "__main__"})
    else:
        sys.argv = line
        runpy.run_path(line[0], run_name="__main__")
    return 0


def interpreter(place: str) -> Path:
    """Beside a server's socket: what a program may start in the place of an interpreter, with output in a file."""
    return Path(place).with_name("python")


def stand_in(line: list[str]) -> int:
    """Launch a program and pass on what it is sent to stop."""
    program = launch([sys.executable, *line], cwd=Path.cwd(), output=Path(os.readlink("/proc/self/fd/1")))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(program.pid, number))
    return program.wait()


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        sys.exit(stand_in(sys.argv[1:]))
