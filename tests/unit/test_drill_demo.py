"""The demonstration's verdict: nothing proves nothing."""

import pytest

from outlast.drill.core.ledger import Judgement
from outlast.drill.demo import FaultRow, verdict_of

KEPT = Judgement(10, 0, 0, 0, 100, 100, ())
BROKEN = Judgement(10, 0, 1, 0, 100, 100, ("a transfer was lost",))
SHOWN = FaultRow("crash@leader", ("n1",), 0, "pid gone: 7")
CLAIMED = FaultRow("crash@leader", ("n1",), 0)


@pytest.mark.parametrize(
    ("judgement", "faults", "ok", "info", "verdict"),
    [
        (KEPT, [SHOWN], 10, 0, "survived"),
        (BROKEN, [SHOWN], 10, 0, "failed"),
        (BROKEN, [], 10, 0, "failed"),
        (None, [SHOWN], 10, 0, "failed"),
        (KEPT, [], 10, 0, "void"),
        (KEPT, [SHOWN, CLAIMED], 10, 0, "void"),
        (KEPT, [SHOWN], 0, 0, "unknown"),
        (KEPT, [SHOWN], 10, 3, "unknown"),
        (KEPT, [SHOWN], 10, 2, "survived"),
    ],
)
def test_the_verdict_needs_evidence_and_progress(judgement, faults, ok, info, verdict):
    assert verdict_of(judgement, faults, ok, info) == verdict
