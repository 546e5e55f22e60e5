"""A process that shares a breaker: `python prober.py URL NODE BEHAVIOUR`.

Commands are lines on its standard input; each is answered by one line.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from outlast.kernel import CircuitOpenError
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.store import open_store


def main(url: str, node: str) -> None:
    store = open_store(url, node=node, interval=0.05, timeout=10.0)
    breaker = CircuitBreaker(
        failure_threshold=2, recovery_timeout=0.3, recovery_cap=0.3, probe_timeout=2.0, name="api",
        store=store,
    )  # fmt: skip
    held = []
    print("ready", flush=True)
    for line in sys.stdin:
        word = line.strip()
        answer = "ok"
        try:
            if word == "state":
                answer = breaker.state
            elif word == "follows":
                answer = "ok" if breaker.shared.following else "not yet"
            else:
                permit = breaker.try_admit()
                if word == "fail":
                    permit.fail(OSError())
                elif word == "succeed":
                    permit.succeed()
                else:
                    held.append(permit)
        except CircuitOpenError:
            answer = "refused"
        print(answer, flush=True)


main(sys.argv[1], sys.argv[2])
