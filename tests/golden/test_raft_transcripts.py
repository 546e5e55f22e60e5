"""Scripts for a Raft cluster and the transcripts they give, in ``tests/golden/raft/*.txt``.

A line ``> command`` is run; what happens is written below it; ``#`` lines are comments. Review
changes as a diff: ``pytest tests/golden/test_raft_transcripts.py --update-golden``.

Commands: ``cluster 3 [learners 1]``, ``join n4``, ``stand n1`` (its timer fires), ``run MS``,
``quiet MS`` (the same, without the messages), ``propose n1 a b``, ``seal n1 next``, ``read n1``,
``change n1 n1 n2 n4 n5?`` (``?``: without a vote), ``transfer n1 n2``, ``cut n1 / n2 n3``,
``heal``, ``crash n1``, ``start n1``, ``lost n1 n2``, ``stall n1``, ``resume n1``,
``snapshot n1 CHUNKS``, ``log n1``, ``status``.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.kernel import NodeId, ReplicaId, node_of, replica_id
from outlast.log.api import Member
from outlast.log.engines.raft.core.types import (
    AnyMessage,
    AppendRequest,
    AppendResponse,
    Effects,
    Entry,
    EntryKind,
    Overwritten,
    PersistStalled,
    RaftEvent,
    Receive,
    Refused,
    SnapshotOffer,
    SnapshotWant,
    TransferNow,
    VoteRequest,
    VoteResponse,
)
from tests.support.raft_sim import MS, Cluster, ids

FOLDER = Path(__file__).parent / "raft"


def of(name: str) -> ReplicaId:
    return replica_id(NodeId(name), 1)


def short(entry: Entry) -> str:
    body = entry.payload.decode() if entry.kind in {0, 3} else EntryKind(entry.kind).name.lower()
    mark = "seal:" if entry.kind == EntryKind.SEAL else ""
    return f"{entry.index}.{entry.term} {mark}{body}"


def say(message: AnyMessage) -> str:
    """Write a message in the words of the paper."""
    match message:
        case VoteRequest():
            kind = "would-vote?" if message.pre else "vote!" if message.transfer else "vote?"
            text = f"{kind} last {message.last_index}.{message.last_term}"
        case VoteResponse():
            text = f"{'would ' if message.pre else ''}{'grant' if message.granted else 'refuse'}"
            text += f" (asked {message.request_term})"
        case AppendRequest():
            listed = ", ".join(short(entry) for entry in message.entries) or "-"
            text = f"append after {message.previous_index}.{message.previous_term}: {listed}"
            text += f" | commit {message.commit} round {message.round}"
        case AppendResponse(success=True):
            text = f"have {message.match} round {message.round}"
        case AppendResponse():
            text = f"reject {message.rejected}: try {message.conflict_index}"
            text += f" (term {message.conflict_term})"
        case SnapshotOffer():
            text = f"offer snapshot {message.index}.{message.index_term}"
            text += f" of {message.chunk_count} chunks"
        case SnapshotWant():
            text = "done" if message.done else f"want from chunk {message.next_chunk}"
        case TransferNow():
            text = "stand now"
    return f"t{message.term} {text}"


class Script:
    """Runs commands and collects what happens."""

    def __init__(self) -> None:
        self.cluster = Cluster(ids(3))
        self.lines: list[str] = []
        self.loud = True
        self.begin = 0
        self.roles: dict[str, str] = {}

    def watch(self, replica: ReplicaId, event: RaftEvent, effects: Effects) -> None:
        """Write down one step."""
        now = (self.cluster.now - self.begin) / MS
        me = node_of(replica)
        if self.loud and isinstance(event, Receive):
            self.lines.append(f"{now:7.1f} {node_of(event.sender)}>{me} {say(event.message)}")
        node = self.cluster.node(replica)
        role = f"{node.role.name.lower()} t{node.term}"
        if self.roles.get(me) != role:
            self.roles[me] = role
            self.lines.append(f"{now:7.1f} {me} is {role}")
        if self.loud and effects.committed is not None:
            self.lines.append(f"{now:7.1f} {me} commits {effects.committed}")
        if effects.membership is not None:
            found = node.state.config
            old = f" and {len(found.old_voters)} old" if found.joint else ""
            self.lines.append(f"{now:7.1f} {me} members v{found.version}: {self.list(found)}{old}")
        for answer in effects.answers:
            if isinstance(answer, Refused):
                said = f"{type(answer.error).__name__}: {answer.error}"
                self.lines.append(f"{now:7.1f} {me} refuses #{answer.ticket}: {said}")
            elif isinstance(answer, Overwritten):
                self.lines.append(f"{now:7.1f} {me} lost entries from {answer.index} on")
            else:
                at = getattr(answer, "index", "")
                name = type(answer).__name__
                self.lines.append(f"{now:7.1f} {me} {name} #{answer.ticket} {at}".rstrip())

    def list(self, config: object) -> str:
        members = config.members  # type: ignore[attr-defined]
        return " ".join(node_of(m.replica) + ("" if m.voter else "?") for m in members)

    def do(self, line: str) -> None:
        name, *words = line.split()
        handler: Callable[..., None] = getattr(self, f"do_{name}")
        handler(*words)

    def do_cluster(self, count: str, *rest: str) -> None:
        names = [of(f"n{i + 1}") for i in range(int(count) + (int(rest[1]) if rest else 0))]
        self.cluster = Cluster(names[: int(count)], learners=names[int(count) :], seed=1)
        self.begin = self.cluster.now
        self.cluster.on_effects = self.watch

    def do_join(self, name: str) -> None:
        self.cluster.add_host(of(name), may_vote=False)

    def do_stand(self, name: str) -> None:
        self.cluster.stand(of(name))

    def do_run(self, ms: str) -> None:
        self.cluster.run(float(ms) / 1000)

    def do_quiet(self, ms: str) -> None:
        self.loud = False
        self.cluster.run(float(ms) / 1000)
        self.loud = True

    def do_propose(self, name: str, *payloads: str) -> None:
        self.cluster.propose(of(name), *[p.encode() for p in payloads])

    def do_seal(self, name: str, after: str) -> None:
        self.cluster.propose(of(name), after.encode(), kind=EntryKind.SEAL)

    def do_read(self, name: str) -> None:
        self.cluster.ask(of(name))

    def do_change(self, name: str, *members: str) -> None:
        found = [Member(of(m.rstrip("?")), "", not m.endswith("?")) for m in members]
        self.cluster.change(of(name), found)

    def do_transfer(self, name: str, target: str) -> None:
        self.cluster.transfer(of(name), of(target))

    def do_cut(self, *words: str) -> None:
        at = words.index("/")
        self.cluster.cut([of(w) for w in words[:at]], [of(w) for w in words[at + 1 :]])

    def do_heal(self) -> None:
        self.cluster.heal()

    def do_crash(self, name: str) -> None:
        self.cluster.crash(of(name))

    def do_start(self, name: str) -> None:
        self.cluster.start(of(name))

    def do_lost(self, left: str, right: str) -> None:
        self.cluster.lose_connection(of(left), of(right))

    def do_stall(self, name: str) -> None:
        self.cluster.hosts[of(name)].slow_disk = True
        self.cluster.propose(of(name), b"stuck")
        self.cluster.step(of(name), PersistStalled())

    def do_resume(self, name: str) -> None:
        self.cluster.resume_disk(of(name))

    def do_snapshot(self, name: str, chunks: str) -> None:
        self.cluster.take_snapshot(of(name), chunks=int(chunks))

    def do_log(self, name: str) -> None:
        image = self.cluster.hosts[of(name)].written
        listed = ", ".join(short(entry) for entry in image.entries)
        self.lines.append(f"        {name} after {image.base[0]}.{image.base[1]}: {listed}")

    def do_status(self) -> None:
        for replica in self.cluster.up():
            node = self.cluster.node(replica)
            leader = "-" if node.leader is None else node_of(node.leader)
            self.lines.append(
                f"        {node_of(replica)} {node.role.name.lower()} t{node.term} "
                f"leader {leader} commit {node.commit} last {node.last_index} "
                f"durable {node.durable_index}"
            )


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path, golden: Callable[[Path, str], None]) -> None:
    script = Script()
    produced: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(">"):
            produced.append(line)
            script.lines = []
            script.do(line[1:].strip())
            produced += script.lines
        elif line.startswith("#") or not line.strip():
            produced.append(line)
    golden(path, "\n".join(produced) + "\n")


def test_there_are_transcripts() -> None:
    assert len(list(FOLDER.glob("*.txt"))) >= 8
