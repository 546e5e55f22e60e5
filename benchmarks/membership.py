"""Members as real processes on loopback, beside serf: how soon a death is noticed, at what cost.

    python -m benchmarks.membership [--quick] [--json] [--load [SECONDS]] [--load-alone]
        [--without-serf] [--only SYSTEM] [--members N]

Each of N members (16) is a process. Measured are, of ours in two profiles and of Debian's serf
with its defaults, in one run:

- idle: bytes and packets per second that the loopback interface saw, headers included, CPU and
  memory, each per member;
- kill -9 of one: when the first, the median and the last of the others said that it had failed;
- SIGSTOP of one for 2.5 s: whether anybody removed it;
- four deaths in a row in a group of five.

`--load` adds two minutes with eight burners per core: nobody dies, so each removal is a mistake;
with `--load-alone` nothing else is measured.
Times are those at which this process read the line that said so. Ours encrypt what they send; serf
does not. The run moves into a network namespace of its own where that is permitted, so that only
the members' traffic is counted; elsewhere bytes and packets are left out. serf is unpacked, not
installed (tools/engines.py), and its agents listen on loopback only.
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import re
import secrets
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import common
from tools import engines

SERF_LINE = re.compile(r"serf: (EventMember\w+): (\S+)")
SERF_KINDS = {
    "EventMemberJoin": "MemberJoined",
    "EventMemberFailed": "MemberDead",
    "EventMemberLeave": "MemberLeft",
}
GONE = ("MemberDead",)
THERE = ("MemberJoined", "MemberRejoined", "MemberAlive")
WITHIN = 45.0


@dataclass
class Process:
    """One member, with what it has said and when."""

    name: str
    popen: subprocess.Popen[str]
    said: list[tuple[float, str, str]] = field(default_factory=list)
    traffic: dict[str, int] = field(default_factory=dict)

    def after(self, begin: float, kinds: tuple[str, ...], member: str) -> float | None:
        """When it first said one of `kinds` of `member` after `begin`."""
        for at, kind, name in list(self.said):
            if at >= begin and kind in kinds and name == member:
                return at
        return None


class Group:
    """A number of members of one system."""

    def __init__(self, system: str, count: int) -> None:
        self.system = system
        self.key = secrets.token_hex(32)
        ports = common.free_ports(2 * count)
        self.ports = {f"n{number}": ports[2 * number : 2 * number + 2] for number in range(count)}
        self.processes: dict[str, Process] = {}

    def command(self, name: str) -> list[str]:
        port, rpc = self.ports[name]
        first = next(iter(self.ports))
        others = [one for one in self.processes if one != name]
        seed = f"127.0.0.1:{self.ports[first if first != name else others[0]][0]}" if (
            first != name or others
        ) else "-"  # fmt: skip
        if self.system == "serf":
            return [
                str(engines.ensure("serf")), "agent", f"-node={name}", f"-bind=127.0.0.1:{port}",
                f"-rpc-addr=127.0.0.1:{rpc}", "-log-level=info",
                *([] if seed == "-" else [f"-retry-join={seed}", "-retry-interval=1s"]),
            ]  # fmt: skip
        return [
            sys.executable, "-m", "benchmarks.peers.membership_node", name, f"127.0.0.1:{port}",
            seed, self.system.removeprefix("outlast "), self.key,
        ]  # fmt: skip

    def start(self, name: str) -> None:
        popen = subprocess.Popen(
            self.command(name), cwd=common.ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        process = self.processes[name] = Process(name, popen)
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def _read(self, process: Process) -> None:
        assert process.popen.stdout is not None
        for line in process.popen.stdout:
            at = time.monotonic()
            if self.system == "serf":
                found = SERF_LINE.search(line)
                if found:
                    kind = SERF_KINDS.get(found[1], found[1])
                    process.said.append((at, kind, found[2]))
                continue
            try:
                facts = json.loads(line)
            except ValueError:
                print(f"{process.name}: {line.rstrip()}", file=sys.stderr)
                continue
            if facts["kind"] == "Traffic":
                process.traffic = {key: facts[key] for key in facts if key != "kind"}
            else:
                process.said.append((at, facts["kind"], facts.get("member", "")))

    def start_all(self) -> float:
        """Start all, and return how long it took until each knew each."""
        begin = time.monotonic()
        for name in self.ports:
            self.start(name)
            if len(self.processes) == 1:
                time.sleep(0.5 if self.system == "serf" else 1.0)
        pairs = [(a, b) for a in self.ports for b in self.ports if a != b]
        until(
            lambda: all(self.processes[a].after(begin, THERE, b) for a, b in pairs),
            f"{self.system}: all know all",
            60.0,
        )
        return time.monotonic() - begin

    def stop(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.popen.send_signal(signal.SIGCONT)
                process.popen.kill()
        for process in self.processes.values():
            process.popen.wait()

    @property
    def pids(self) -> list[int]:
        return [one.popen.pid for one in self.processes.values() if one.popen.poll() is None]

    # --- measures ------------------------------------------------------------------------

    def kill(self, name: str) -> dict[str, Any]:
        """Kill one, and return when the others noticed, in seconds."""
        begin = time.monotonic()
        victim = self.processes.pop(name)
        victim.popen.kill()
        victim.popen.wait()
        others = list(self.processes.values())

        def all_noticed() -> bool:
            return all(one.after(begin, GONE, name) is not None for one in others)

        with contextlib.suppress(TimeoutError):
            until(all_noticed, "", WITHIN)
        times = [one.after(begin, GONE, name) for one in others]
        noticed = sorted(at - begin for at in times if at is not None)
        missing = len(times) - len(noticed)
        if not noticed:
            return {"first": None, "median": None, "all": None, "missing": missing}
        return {
            "first": round(noticed[0], 3),
            "median": round(statistics.median(noticed), 3),
            "all": round(noticed[-1], 3) if not missing else None,
            "missing": missing,
        }

    def back(self, name: str) -> None:
        """Start a killed one again and wait until all know it."""
        begin = time.monotonic()
        self.start(name)
        others = [one for one in self.processes.values() if one.name != name]
        until(
            lambda: all(one.after(begin, THERE, name) for one in others), f"{name} is back", 90.0
        )
        time.sleep(2.0)

    def freeze(self, name: str, seconds: float) -> int:
        """Stop one for a while; return how many others removed it."""
        begin = time.monotonic()
        victim = self.processes[name]
        victim.popen.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        victim.popen.send_signal(signal.SIGCONT)
        time.sleep(8.0)
        return sum(
            one.after(begin, GONE, name) is not None
            for one in self.processes.values()
            if one is not victim
        )

    def idle(self, seconds: float, *, counted: bool) -> dict[str, Any]:
        """What each costs while nothing happens."""
        time.sleep(3.0)
        pids, count = self.pids, len(self.pids)
        cpu, before, begin = common.cpu_seconds(pids), interface(), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begin
        after = interface()
        used = common.cpu_seconds(pids) - cpu
        per_second = {
            key: round((after[key] - before[key]) / took / count, 1) if counted else None
            for key in before
        }
        memory = [rss_bytes(pid) / 2**20 for pid in pids]
        return {
            **per_second,
            "cpu_percent": round(100 * used / took / count, 2),
            "rss_mib": round(statistics.median(memory), 1),
        }

    def mistakes(self, begin: float) -> dict[str, int]:
        """Removals and suspicions that were said since, of members of which none had died."""
        said = [one for each in self.processes.values() for one in each.said if one[0] >= begin]
        removed = sum(kind in GONE or kind == "MemberUnreachable" for _, kind, _ in said)
        suspected = sum(kind == "MemberSuspected" for _, kind, _ in said)
        return {"removals": removed, "suspicions": suspected}


def until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)


def interface() -> dict[str, int]:
    """What the loopback interface has sent so far, headers included."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if "lo:" in line)
    fields = line.partition(":")[2].split()
    return {"bytes": int(fields[8]), "packets": int(fields[9])}


def rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def own_network() -> bool:
    """Move this process into a network namespace of its own, with loopback up, if permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_user, new_net = 0x10000000, 0x40000000
    if libc.unshare(new_net) and libc.unshare(new_user | new_net):
        return False
    up, get_flags, set_flags = 0x1, 0x8913, 0x8914
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = fcntl.ioctl(sock, get_flags, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1] | up
        fcntl.ioctl(sock, set_flags, struct.pack("16sh14x", b"lo", flags))
    return True


@contextlib.contextmanager
def group(system: str, count: int) -> Iterator[Group]:
    made = Group(system, count)
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def burners(count: int) -> Iterator[None]:
    """Processes that only burn CPU."""
    made = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in made:
            one.kill()
            one.wait()


@dataclass
class Figures:
    """What was measured of one system."""

    system: str
    members: int
    joined_s: float = 0.0
    idle: dict[str, Any] = field(default_factory=dict)
    kills: list[dict[str, Any]] = field(default_factory=list)
    frozen_evicted_by: int = 0
    deaths_in_a_row: list[dict[str, Any]] = field(default_factory=list)
    load: dict[str, Any] = field(default_factory=dict)

    def worst(self, key: str) -> float | None:
        values = [kill[key] for kill in self.kills]
        return None if None in values or not values else max(values)

    def lines(self) -> list[str]:
        spans = {
            key: f"{min(v):.2f}-{max(v):.2f}"
            if (v := [k[key] for k in self.kills if k[key]])
            else "-"
            for key in ("first", "median", "all")
        }
        idle = self.idle
        row = " ".join(_seconds(death["all"]) for death in self.deaths_in_a_row)
        found = [f"{self.system}, {self.members} members, joined in {self.joined_s:.1f} s"]
        figures = [
            f"  kill -9, {len(self.kills)} times: first {spans['first']}, median"
            f" {spans['median']}, all {spans['all']} s",
            f"  idle per member: {idle.get('bytes')} bytes/s, {idle.get('packets')} packets/s,"
            f" CPU {idle.get('cpu_percent')} %, RSS {idle.get('rss_mib')} MiB",
            f"  stopped for 2.5 s: removed by {self.frozen_evicted_by} of {self.members - 1}",
            f"  deaths in a row of five, noticed by all after: {row}",
        ]
        found += figures if self.kills else []
        if self.load:
            found.append(
                f"  {self.load['seconds']:.0f} s with {self.load['burners']} burners:"
                f" {self.load['removals']} removals, {self.load['suspicions']} suspicions"
            )
        return found


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def measure(system: str, options: argparse.Namespace, *, counted: bool) -> Figures:
    figures = Figures(system, options.members)
    if not options.load_alone:
        _measure_failures(figures, options, counted=counted)
    if options.load:
        with group(system, options.members) as made:
            figures.joined_s = round(made.start_all(), 2)
            count = 8 * len(os.sched_getaffinity(0))
            with burners(count):
                begin = time.monotonic()
                time.sleep(options.load)
                load = {"seconds": options.load, "burners": count, **made.mistakes(begin)}
            figures.load = load
    return figures


def _measure_failures(figures: Figures, options: argparse.Namespace, *, counted: bool) -> None:
    with group(figures.system, options.members) as made:
        figures.joined_s = round(made.start_all(), 2)
        figures.idle = made.idle(5.0 if options.quick else 30.0, counted=counted)
        names = list(made.ports)
        for name in names[1 : 2 if options.quick else 6]:
            figures.kills.append(made.kill(name))
            made.back(name)
        figures.frozen_evicted_by = made.freeze(names[-1], 2.5)
    with group(figures.system, 5) as made:
        made.start_all()
        time.sleep(2.0)
        for name in list(made.ports)[4:0:-1]:
            figures.deaths_in_a_row.append(made.kill(name))
            time.sleep(1.0)


def bars(all_figures: list[Figures]) -> list[str]:
    """The bars of the project, and whether this run clears them."""
    found = []
    limits = {"outlast lan": 2.5, "outlast fast": 1.5}
    for one in all_figures:
        if one.system not in limits:
            continue
        slowest = one.worst("all")
        limit = limits[one.system]
        rows = []
        if one.kills:
            rows.append(
                (f"all notice a kill within {limit} s", slowest is not None and slowest <= limit)
            )
        if one.idle.get("bytes") is not None:
            rows.append(("at most 1 kB/s per member", one.idle["bytes"] <= 1000))
        if one.kills and one.system == "outlast lan":
            rows.append(("a stop of 2.5 s removes nobody", one.frozen_evicted_by == 0))
        deaths = [death["all"] for death in one.deaths_in_a_row]
        third_ok = len(deaths) > 2 and None not in deaths and deaths[2] <= 2 * deaths[0]
        if deaths:
            rows.append(("the third death takes at most twice the first", third_ok))
        if one.load:
            rows.append(("no false removal under load", one.load["removals"] == 0))
        found += [f"{one.system}: {what}: {'yes' if ok else 'NO'}" for what, ok in rows]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one kill, short windows")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--load", type=float, nargs="?", const=120.0, help="add seconds of CPU load, two minutes"
    )
    parser.add_argument("--load-alone", action="store_true", help="measure nothing else")
    parser.add_argument("--without-serf", action="store_true")
    parser.add_argument("--only", help="measure only this system, such as 'outlast lan'")
    parser.add_argument("--members", type=int, default=16)
    options = parser.parse_args()
    if options.load_alone and not options.load:
        options.load = 120.0
    systems = ["outlast lan", "outlast fast", *(() if options.without_serf else ("serf",))]
    if options.only:
        systems = [options.only]
    if "serf" in systems:
        engines.ensure("serf")  # while the network is still there
    counted = own_network()
    found = [measure(system, options, counted=counted) for system in systems]
    if options.json:
        facts = {"machine": common.machine(), "systems": [asdict(one) for one in found]}
        print(json.dumps({**facts, "bars": bars(found)}))
        return 0
    print(common.machine())
    for one in found:
        print("\n".join(one.lines()))
    print("\n".join(bars(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
