"""`outlast faults`, and where `outlast heal` looks."""

import json
import os
import subprocess
import sys

import pytest

from outlast.inject import CATALOGUE, machine, permits
from outlast.inject.place import searched, well_known

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


def outlast(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "outlast", *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_faults_are_listed_with_what_this_machine_says():
    code, out = outlast("faults")
    assert code == 0
    for row in CATALOGUE:
        assert row.name in out
    code, out = outlast("faults", "--json")
    listed = json.loads(out)
    assert (code, listed["schema"]) == (0, 1)
    assert [row["fault"] for row in listed["faults"]] == [row.name for row in CATALOGUE]
    assert all(row["permitted"] or row["why_not"] for row in listed["faults"])


def test_a_machine_without_namespaces_permits_all_but_full_disks(monkeypatch):
    monkeypatch.setattr(machine, "volume_permitted", lambda: "unshare is missing")
    refused = {
        each.row.name: each.why_not for each in permits() if each.row.built and each.why_not
    }
    assert refused == {"disk:full": "unshare is missing"}


def test_journals_lie_where_the_environment_says(monkeypatch):
    monkeypatch.delenv("OUTLAST_STATE", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    shared = f"/tmp/outlast-{os.geteuid()}"
    assert well_known() == searched() == ["/run/user/7/outlast", shared]
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert well_known() == searched() == [shared]
    monkeypatch.setenv("OUTLAST_STATE", "/state")
    assert well_known() == ["/state", shared]
    assert searched() == ["/state"]
