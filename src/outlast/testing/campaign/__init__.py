"""Campaigns: many seeds of a simulation test, in several processes, and what they found.

``outlast sim`` is this package with a command line. From Python::

    origin = origin_of("test_shop.py::test_orders")
    for runnable in origin.load():
        print(run_campaign(runnable, origin=origin, settings=Settings(seeds=10_000)))
"""

from outlast.testing.campaign.campaign import Campaign, Settings, View, run_campaign
from outlast.testing.campaign.loading import Origin, find_tests, origin_of
from outlast.testing.campaign.model import (
    Difference,
    Explanation,
    FaultStep,
    Outcome,
    Runnable,
    SeedResult,
    Trace,
)
from outlast.testing.campaign.report import Report, Tally, Verdict
from outlast.testing.campaign.single import write_trace

__all__ = [
    "Campaign",
    "Difference",
    "Explanation",
    "FaultStep",
    "Origin",
    "Outcome",
    "Report",
    "Runnable",
    "SeedResult",
    "Settings",
    "Tally",
    "Trace",
    "Verdict",
    "View",
    "find_tests",
    "origin_of",
    "run_campaign",
    "write_trace",
]
