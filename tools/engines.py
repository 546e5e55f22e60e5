"""Unpack the engines that tests and benchmarks run into `.engines/`, from Debian's packages.

Nothing is installed system-wide and no service is started: `apt-get download` fetches the
package, `dpkg-deb -x` unpacks it. `python tools/engines.py etcd` prints the path of the program.
A program that is already on PATH is not used: everybody should run the same one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ROOT / ".engines"


class EngineError(Exception):
    """An engine cannot be had here; the message names the package and what to do."""


@dataclass(frozen=True)
class Engine:
    """What has to be unpacked for one engine, and how to see that it runs."""

    program: str
    packages: tuple[str, ...]
    version: tuple[str, ...] = ("--version",)


KNOWN = {
    "etcd": Engine("usr/bin/etcd", ("etcd-server", "etcd-client")),
    "redis": Engine(
        "usr/bin/redis-server",
        ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1"),
    ),
    "serf": Engine("usr/bin/serf", ("serf",), ("version",)),
}


def run(
    command: list[str], *, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and return it with its output, whatever its exit code."""
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def environment(name: str) -> dict[str, str]:
    """The environment to start an engine in: with the shared libraries unpacked beside it."""
    folders = sorted({str(path.parent) for path in (ENGINES / name).glob("usr/lib/**/*.so*")})
    inherited = os.environ.get("LD_LIBRARY_PATH")
    joined = ":".join([*folders, *([inherited] if inherited else [])])
    return {**os.environ, **({"LD_LIBRARY_PATH": joined} if joined else {})}


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line a command printed: apt and dpkg put the reason there."""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def fetch(package: str, folder: Path) -> Path:
    """Download one package into a folder and return its file.

    If the package is unknown or its listed version is gone from the mirror, and this user may
    write apt's lists, the lists are updated once.
    """
    done = run(["apt-get", "download", package], cwd=folder)
    if done.returncode != 0 and os.access("/var/lib/apt/lists", os.W_OK):
        run(["apt-get", "update", "-q"], cwd=folder)
        done = run(["apt-get", "download", package], cwd=folder)
    files = sorted(folder.glob(f"{package}_*.deb"))
    if done.returncode != 0 or not files:
        reason = last_line(done)
        raise EngineError(
            f"Debian package {package} cannot be downloaded ({reason}): "
            f"run apt-get update as root, then this again"
        )
    return files[0]


def unpack(name: str, engine: Engine) -> Path:
    """Unpack an engine's packages into `.engines/NAME`, whole or not at all."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise EngineError(
                f"{name} comes from Debian package {engine.packages[0]}, and there is no {tool} "
                f"here: put a {engine.program} of your own under {ENGINES / name}"
            )
    ENGINES.mkdir(exist_ok=True)
    target = ENGINES / name
    with tempfile.TemporaryDirectory(dir=ENGINES, prefix=f"{name}-") as scratch:
        tree = Path(scratch) / "tree"
        for package in engine.packages:
            done = run(["dpkg-deb", "-x", str(fetch(package, Path(scratch))), str(tree)])
            if done.returncode != 0:
                raise EngineError(
                    f"Debian package {package} cannot be unpacked: {last_line(done)}"
                )
        shutil.rmtree(target, ignore_errors=True)
        tree.rename(target)
    return target


def stamp(engine: Engine) -> str:
    """What the stamp file holds: the packages, so that a changed list unpacks again."""
    return "\n".join(engine.packages) + "\n"


def ensure(name: str) -> Path:
    """Return the program of an engine, unpacked if it is not there yet.

    Raises:
        EngineError: It is unknown, cannot be fetched, or does not start.
    """
    if name not in KNOWN:
        raise EngineError(f"there is no engine {name!r}; there are {', '.join(sorted(KNOWN))}")
    engine = KNOWN[name]
    program = ENGINES / name / engine.program
    stamped = ENGINES / f"{name}.stamp"
    if program.exists() and stamped.exists() and stamped.read_text() == stamp(engine):
        return program
    if not (program.exists() and not stamped.exists()):  # a program put there by hand is kept
        unpack(name, engine)
    done = run([str(program), *engine.version], env=environment(name))
    if done.returncode != 0:
        raise EngineError(
            f"{name} from {', '.join(engine.packages)} does not start: {last_line(done)}"
        )
    stamped.write_text(stamp(engine))
    return program


def main(names: list[str]) -> int:
    """Print the path of each named engine's program; exit 2 with one line if one cannot be had."""
    try:
        for name in names or ["etcd"]:
            print(ensure(name))
    except EngineError as error:
        print(f"tools/engines.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
