"""Checks ready-made, for :meth:`outlast.detect.Health.add`.

Each names its target and the cause in one line, and no secret: of a URL only scheme, host, port
and path are told, of an exception its type. Those that ask something outside of this process
say ``needs_network`` of themselves, so that liveness refuses them. Each is bounded by its own
timeout where that is possible, and by the registry's in any case.
"""

from outlast.detect.checks.client import redis, sql
from outlast.detect.checks.machine import disk_space, file_age, memory
from outlast.detect.checks.network import http, tcp
from outlast.detect.checks.part import breaker, supervisor

__all__ = [
    "breaker",
    "disk_space",
    "file_age",
    "http",
    "memory",
    "redis",
    "sql",
    "supervisor",
    "tcp",
]
