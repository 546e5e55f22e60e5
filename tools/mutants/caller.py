"""Mutants of the client: how it repeats, whom it asks, which answer it believes."""

from tools.mutants.table import mutant

_COURIER = "cluster/courier.py"
_CALL = "cluster/core/call.py"

CLIENT = (
    mutant(
        "repeat-under-a-new-number", "state/core/client_session.py",
        "        request.attempt_count += 1\n        return encode_command(\n",
        "        request.attempt_count += 1\n"
        "        if request.attempt_count > 1 and not self.full:\n"
        "            request = self.begin(request.name, request.args, request.key)\n"
        "        return encode_command(\n",
        breaks="A command whose outcome is unknown is repeated under its own number",
        section="Raft 8, thesis 6.3", level="cluster", black_box=True,
        faults="connections reset, crash of a leader",
    ),
    mutant(
        "late-answer-taken-by-another", _COURIER,
        "        call = self._calls.get(stream)\n        if kind == _REPLY:\n",
        "        call = self._calls.get(stream) or next(iter(self._calls.values()), None)\n"
        "        if kind == _REPLY:\n",
        breaks="An answer is taken by the request that it answers", section="wire, streams",
        level="cluster", black_box=True, faults="deadlines that pass, slow links",
    ),
    mutant(
        "client-reads-stale", "cluster/client.py",
        "            body = _ENCODE(Query(name, args, stale))\n",
        "            body = _ENCODE(Query(name, args, True))\n",
        breaks="A query of a client is linearizable", section="thesis 6.4", level="cluster",
        black_box=True, faults="a leader that is cut off or paused",
    ),
    mutant(
        "expired-session-repeated-in-a-new-one", _CALL,
        "        if not maybe:\n            return Reopen()\n",
        "        if repeatable:\n            return Reopen()\n",
        breaks="A command that may have run in an expired session is not run in a new one",
        section="thesis 6.3", level="cluster", black_box=True,
        faults="sessions expire, answers lost",
    ),
    mutant(
        "failed-attempt-told-as-refused", _COURIER,
        "                call.refusal = error\n"
        "            else:\n"
        "                call.maybe = True\n",
        "                call.refusal = error\n",
        breaks="A call of which one attempt ended without a known outcome may have run",
        section="DESIGN, outcomes", level="cluster", black_box=True,
        faults="crash of a leader, then no other before the deadline",
    ),
    mutant(
        "timeout-told-as-not-sent", _COURIER,
        "        if call.maybe or call.sent_to is not None:\n",
        "        if call.maybe and call.sent_to is None:\n",
        breaks="A command that was sent and not answered in time may have run",
        section="DESIGN, outcomes", level="cluster", black_box=True,
        faults="deadlines that pass, slow links",
    ),
    mutant(
        "lost-connection-told-as-not-sent", _COURIER,
        "            call.sent_to = None\n"
        "            call.maybe = True\n"
        "            if call.pinned:\n",
        "            call.sent_to = None\n"
        "            if call.pinned:\n",
        breaks="A command whose connection broke may have run", section="DESIGN, outcomes",
        level="cluster", black_box=True, faults="crash of a leader and no new one in time",
    ),
)  # fmt: skip
