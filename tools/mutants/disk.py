"""Mutants of what lies on disk: the write-ahead log, and how the Raft driver uses it."""

from tools.mutants.table import Edit, mutant

_SCAN = "log/wal/core/scan.py"
_WRITER = "log/wal/writer.py"

WAL = (
    mutant(
        "fsync-skipped", _WRITER,
        '            world.fault_point("wal.before_fsync")\n            file.fdatasync()\n',
        '            world.fault_point("wal.before_fsync")\n',
        breaks="An append is acknowledged once the disk has it", section="log interface, append",
        level="cluster", black_box=True, faults="power cut",
    ),
    mutant(
        "torn-tail-accepted", _SCAN,
        "        if end > size or crc32c(mem[start:end], seed) != body_crc:\n",
        "        if end > size:\n",
        breaks="A frame of which only a part arrived is cut off", section="wal, scan",
        level="cluster", black_box=True, faults="power cut with torn writes",
    ),
    mutant(
        "corruption-cut-off-silently", _SCAN,
        "    if must_be_sealed or scan.sealed or wrong_seq or claimed >= seq:\n",
        "    if must_be_sealed or scan.sealed:\n",
        breaks="Damage to what was acknowledged stops the node; it is no torn tail",
        section="protocol-aware recovery, FAST 2018", level="damage", black_box=True,
        faults="bit rot in the newest segment, restart",
    ),
    mutant(
        "hard-state-lost-at-rotation", _WRITER,
        "        term, vote = state.hard\n",
        "        term, vote = state.hard[0] // 2, None\n",
        breaks="Term and vote outlive the segment in which they were written",
        section="Raft figure 2", level="cluster", faults="restart after a rotation and a trim",
    ),
    mutant(
        "segment-name-not-synced", _WRITER,
        "        self._world.storage.rename(spare.file.path, path)\n"
        "        self._world.storage.fsync_dir(self._directory)\n",
        "        self._world.storage.rename(spare.file.path, path)\n",
        breaks="A segment's name is on disk before anything in it counts", section="wal, writer",
        level="cluster", black_box=True, faults="power cut after a rotation",
    ),
    mutant(
        "overwritten-entry-read-back", "log/wal/core/view.py",
        "        elif kind == RunKind.TRUNCATE:\n            places.cut(run.first)\n",
        "        elif kind == RunKind.TRUNCATE:\n            places.cut(run.first + 1_000)\n",
        breaks="After a restart an index has the entry that was written last",
        section="wal, view", level="cluster", black_box=True,
        faults="truncation, then a restart",
    ),
    mutant(
        "truncation-not-replayed", "log/wal/core/view.py",
        "        elif kind == RunKind.TRUNCATE:\n            view.truncate(run.first, run.term)\n",
        "        elif kind == RunKind.TRUNCATE:\n"
        "            view.truncate(run.first + 1, run.term)\n",
        breaks="After a restart a tail that was dropped is still dropped", section="Raft 5.3",
        level="cluster", black_box=True, faults="truncation, then a restart",
    ),
    mutant(
        "small-file-renamed-before-synced", "log/files.py",
        "        file.pwrite(data, 0)\n        file.fsync()\n",
        "        file.pwrite(data, 0)\n",
        breaks="A file that replaces another is on disk before it has the name",
        section="mark and identity files", level="cluster", black_box=True,
        faults="power cut after a membership change",
    ),
)  # fmt: skip

DRIVER = (
    mutant(
        "driver-sends-before-durable", "log/engines/raft/driver.py",
        "            if self.disk.durable_ticket < self.disk.ticket:\n",
        "            if self.disk.durable_ticket < 0:\n",
        breaks="What the core wants said after a write is held back until it is on disk",
        section="Raft figure 2", level="cluster", faults="power cut with a write under way",
    ),
    mutant(
        "vote-dropped-by-storage", "log/engines/raft/storage.py",
        '    vote = b"" if state.vote is None else state.vote.encode()\n',
        '    vote = b""\n',
        breaks="The vote that the core persists is on disk", section="Raft figure 2",
        level="cluster", faults="crash between two requests of one term",
    ),
    mutant(
        "durable-before-written", "log/engines/raft/disk.py",
        "        self._writes.append(unit)\n        future.add_done_callback(self._written)\n",
        "        self._writes.append(unit)\n"
        "        unit.future = asyncio.get_running_loop().create_future()\n"
        "        unit.future.set_result(None)\n"
        "        unit.future.add_done_callback(self._written)\n"
        "        future.add_done_callback(self._written)\n",
        breaks="The core is told that a write is durable once it is", section="Raft figure 2",
        level="cluster", black_box=True, faults="power cut",
    ),
    mutant(
        "truncation-one-too-short", "log/engines/raft/storage.py",
        "        return Run(RunKind.TRUNCATE, index, 0, [])\n",
        "        return Run(RunKind.TRUNCATE, index + 1, 0, [])\n",
        breaks="The tail that the core drops is dropped on disk", section="Raft 5.3",
        level="cluster", black_box=True, faults="a leader that is cut off and comes back",
    ),
    mutant(
        "wiped-node-votes-at-once", "cluster/node.py",
        "            may_vote=identity.admitted,\n",
        "            may_vote=True,\n",
        breaks="A node that lost its disk votes and acknowledges only once it is admitted",
        section="recover is not format (VSR revisited)", level="damage",
        faults="disk lost, restart",
        more=(
            Edit(
                "cluster/node.py",
                "        return identity.started and not holds_replica(storage,"
                " self._paths.log)\n",
                "        return not identity.node and holds_replica(storage,"
                " self._paths.log)\n",
            ),
        ),
    ),
)  # fmt: skip
