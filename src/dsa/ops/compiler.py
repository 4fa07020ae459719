"""Compiles the kernels on first use with the user's compiler, and keeps them in the user's cache folder.

One shared object per set of compile-time constants, under a hash of source, flags, compiler and processor, and one of
its own content. Only whole files of this user's that nobody else can write are loaded. Honours $CXX, $CXXFLAGS
(appended, so `-march=...` there wins) and $XDG_CACHE_HOME.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from dsa.artifacts.atomic import replacing

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "kernels"
HOW_TO_GET = "Install g++ or clang++ (Debian/Ubuntu: apt-get install g++; macOS: xcode-select --install) or set $CXX."


class NoCompiler(RuntimeError):
    """The kernels cannot be built on this machine; the message says why and how to get them."""


@functools.cache
def library(source: str, **constants: int) -> ctypes.CDLL:
    """The kernels of one source file, built with these constants.

    Raises:
        NoCompiler: there is no compiler, or it fails.
    """
    defines = [f"-D{name}={value}" for name, value in sorted(constants.items())]
    reasons = []
    for flags in flag_sets():
        name = Path(source).stem + "".join(f"-{value}" for _, value in sorted(constants.items()))
        known = f"{name}-{fingerprint((*flags, *defines))}"
        for path in sorted(cache_folder().glob(f"{known}.*.so")):
            try:
                if sound(path):
                    return ctypes.CDLL(str(path))
            except OSError as error:  # also where another process has just removed it
                logger.warning("kernels: %s does not load (%s).", path, error)
            logger.warning("kernels: building %s again.", path)
            path.unlink(missing_ok=True)
        try:
            return ctypes.CDLL(str(build(SOURCES / source, [*flags, *defines], cache_folder(), known)))
        except (OSError, subprocess.CalledProcessError) as error:
            text = (getattr(error, "stderr", None) or str(error)).strip()
            reasons.append(next((line for line in text.splitlines() if "error" in line), text[:200]))
    raise NoCompiler(f"{compiler()} does not build the fused CPU kernels ({reasons[0]}). {HOW_TO_GET}")


def build(source: Path, flags: list[str], cache: Path, name: str) -> Path:
    """Compile and publish by rename, so that processes which start together never load half a file."""
    with tempfile.TemporaryDirectory(prefix=".build-", dir=cache) as folder:
        made, unlinked = Path(folder) / "kernel.so", Path(folder) / "kernel.o"
        run = functools.partial(subprocess.run, check=True, capture_output=True, text=True)
        run([compiler(), *flags, "-c", str(source), "-o", str(unlinked)])
        # Linked without an OpenMP library: its symbols come from the one that torch has loaded.
        run([compiler(), "-shared", *link_flags(), str(unlinked), "-o", str(made)])
        made.chmod(0o700)
        path = cache / f"{name}.{content_hash(made)}.so"
        with replacing(path) as temporary:
            made.rename(temporary)
    return path


def content_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def sound(path: Path) -> bool:
    """Whether a file is this user's alone to write and as it was built; half a library would end the process."""
    own = path.is_file() and not path.is_symlink() and private(path)
    if not own:
        logger.warning("kernels: %s is not a file that this user alone can write.", path)
    return own and path.name.split(".")[-2] == content_hash(path)


def private(path: Path) -> bool:
    """Whether this user owns a file or folder and nobody else may write it."""
    found = path.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def link_flags() -> list[str]:
    return ["-undefined", "dynamic_lookup"] if platform.system() == "Darwin" else []


@functools.cache
def compiler() -> str:
    """Path of the C++ compiler."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (path := shutil.which(name)):
            return path
    raise NoCompiler(f"no C++ compiler found for the fused CPU kernels. {HOW_TO_GET}")


def flag_sets() -> list[list[str]]:
    """Compiler flags, the best first; a later set serves where the compiler refuses an earlier one."""
    common = ["-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    native = ["-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"]
    user = os.environ.get("CXXFLAGS", "").split()
    sets = [common + native + user, common + user]
    return [[*flags, "-fopenmp"] for flags in sets if torch_has_openmp()] + [[*flags, "-pthread"] for flags in sets]


def torch_has_openmp() -> bool:
    """Whether the OpenMP runtime which this compiler calls is in the process already."""
    symbol = "__kmpc_fork_call" if "clang" in version() else "GOMP_parallel"
    return hasattr(ctypes.CDLL(None), symbol) if platform.system() != "Windows" else False


@functools.cache
def version() -> str:
    return subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=False).stdout


def fingerprint(flags: tuple[str, ...]) -> str:
    parts = [path.read_bytes() for path in sorted(SOURCES.iterdir()) if path.is_file()]
    return hashlib.sha256(b"\0".join([*parts, *map(str.encode, (*flags, version(), processor()))])).hexdigest()[:16]


@functools.cache
def processor() -> str:
    """What distinguishes this processor: code built for it may not run on another that shares the cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


@functools.cache
def cache_folder() -> Path:
    """$XDG_CACHE_HOME/dsa/kernels, or a temporary folder for this process if it is not this user's to write."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsa" / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if folder.stat().st_uid == os.geteuid() and not private(folder):
            folder.chmod(0o700)  # what others have put there is not theirs to be loaded: each file is looked at
        why = None if private(folder) else "is another user's"
    except OSError as error:
        why = f"cannot be written ({error.strerror})"
    if why is None:
        return folder
    scratch = tempfile.TemporaryDirectory(prefix="dsa-kernels-")
    _kept.append(scratch)
    logger.warning("kernels: %s %s; they are built for this process alone.", folder, why)
    return Path(scratch.name)


_kept: list[tempfile.TemporaryDirectory] = []
