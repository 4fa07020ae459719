"""A SLURM of one machine: sbatch, srun, squeue, scancel and scontrol as one script, told apart by its name.

Its state is a folder, $FAKE_SLURM: jobs/<id>/state of every job and array element, and the file `hold`, while which is
there nothing starts. Jobs really run, one after the other, in a process of their own that forked.py starts.
"""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from forked import launch

ROOT = Path(os.environ["FAKE_SLURM"])
OVER = ("COMPLETED", "FAILED", "CANCELLED")


def sbatch(script: str) -> None:
    """Take a script with its #SBATCH lines, and start a process that runs it when it may."""
    text = Path(script).read_text()
    settings = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    ROOT.joinpath("jobs").mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        try:
            (ROOT / f"job-{number}").mkdir()
            break
        except FileExistsError:
            number += 1
    first, last = re.match(r"'?(\d+)-(\d+)", settings["array"]).groups() if "array" in settings else ("", "")
    names = [f"{number}_{i}" for i in range(int(first), int(last) + 1)] if first else [str(number)]
    for name in names:
        (ROOT / "jobs" / name).mkdir()
        tell(name, "PENDING")
    kept = ROOT / f"job-{number}" / "script"
    kept.write_text(text)
    after = re.sub(r"\D+", " ", settings.get("dependency", "")).split()
    subprocess.Popen(
        [sys.executable, __file__, "run", str(kept), ",".join(names), ",".join(after), settings["ntasks-per-node"]],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(ROOT / "errors").open("a"), start_new_session=True,
    )  # fmt: skip
    print(f"Submitted batch job {number}")


def run(script: str, names: str, after: str, tasks: str) -> None:
    """Run the elements of a job, again where they were requeued."""

    def blocked() -> bool:
        now = states()
        if all(now[name] in OVER for name in names.split(",")):
            sys.exit()
        return (ROOT / "hold").exists() or any(now[n] not in OVER for n in now if base(n) in after.split(","))

    while blocked():
        time.sleep(0.1)
    for place, name in enumerate(names.split(",")):
        number = base(name) if "_" not in name else f"{base(name)}{place:03}"  # each element has one, as in SLURM
        environment = os.environ | {"SLURM_JOB_ID": number, "SLURM_NTASKS": tasks, "SLURM_JOB_NUM_NODES": "1"}
        environment |= {"SLURM_NTASKS_PER_NODE": tasks, "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_NAME": "sweep"}
        if "_" in name:
            environment |= {"SLURM_ARRAY_JOB_ID": base(name), "SLURM_ARRAY_TASK_ID": name.split("_")[1]}
        again = ROOT / "jobs" / name / "requeue"
        while states()[name] not in OVER:
            again.unlink(missing_ok=True)
            job = subprocess.Popen(["bash", script], env=environment, start_new_session=True)
            (ROOT / "jobs" / name / "pid").write_text(str(job.pid))
            tell(name, "RUNNING")
            status = job.wait()
            (ROOT / "jobs" / name / "pid").unlink()
            tell(name, "PENDING" if again.exists() else "COMPLETED" if status == 0 else "FAILED")


def srun(*arguments: str) -> int:
    """Start the tasks of a job side by side; the worst exit status."""
    where, rest = {}, list(arguments)
    while rest[0].startswith("--"):
        flag = rest.pop(0)
        if flag in ("--output", "--error"):
            where[flag] = rest.pop(0)
    tasks = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        environment = os.environ | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
        out, err = (Path(filled(where[flag], rank)) for flag in ("--output", "--error"))
        err.touch()  # one file has the words of both streams
        tasks.append(launch(rest, environment, Path.cwd(), output=out))
    running = ROOT / "jobs" / job_name() / "tasks"
    running.write_text(" ".join(str(task.pid) for task in tasks))
    worst = max(abs(task.wait()) for task in tasks)
    running.unlink()
    return worst


def job_name() -> str:
    """The job that this process is a part of."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def filled(path: str, rank: int) -> str:
    names = {"%A": os.environ.get("SLURM_ARRAY_JOB_ID", ""), "%a": os.environ.get("SLURM_ARRAY_TASK_ID", "")}
    for mark, value in {**names, "%j": os.environ["SLURM_JOB_ID"], "%t": str(rank)}.items():
        path = path.replace(mark, value)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return path


def squeue(*_: str) -> None:
    with (ROOT / "asked").open("a") as file:
        file.write("x")
    print("\n".join(name for name, state in states().items() if state not in OVER))


def scancel(name: str, *_: str) -> None:
    tell(name, "CANCELLED")
    kill(name)


def scontrol(command: str, name: str) -> None:
    assert command == "requeue"
    (ROOT / "jobs" / name / "requeue").touch()


def preempt(name: str) -> None:
    """What SLURM does for a job that matters more: kill, and start again later."""
    scontrol("requeue", name)
    kill(name)


def kill(name: str) -> None:
    with suppress(OSError, ValueError):
        os.killpg(int((ROOT / "jobs" / name / "pid").read_text()), signal.SIGKILL)
    tasks = ROOT / "jobs" / name / "tasks"
    for task in tasks.read_text().split() if tasks.exists() else ():
        with suppress(ProcessLookupError):
            os.kill(int(task), signal.SIGKILL)
    tasks.unlink(missing_ok=True)


def base(name: str) -> str:
    return name.split("_")[0]


def tell(name: str, state: str) -> None:
    temporary = ROOT / "jobs" / name / f"state.{os.getpid()}"
    temporary.write_text(state)
    temporary.replace(ROOT / "jobs" / name / "state")


def states() -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in sorted(ROOT.glob("jobs/*/state"))}


if __name__ == "__main__":
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name == Path(__file__).name and name == "slurm.py":
        name, *arguments = arguments
    sys.exit(globals()[name](*arguments))
