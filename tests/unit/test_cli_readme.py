"""The README's commands are commands, and its class is a machine."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from outlast.cli.app import make_app
from outlast.state import load_machine

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", TEXT, re.M))
    assert named
    assert named <= targets


def test_outlast_commands_parse() -> None:
    block = re.findall(r"^outlast (.+)$", TEXT, re.M)
    assert len(block) == 7
    for line in block:
        make_app().parse_args(shlex.split(line), exit_on_error=False, print_error=False)


def test_the_class_is_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = re.search(r"```python\n# bank\.py\n(.*?)```", TEXT, re.S)
    assert source is not None
    (tmp_path / "readme_bank.py").write_text(source[1])
    machine = load_machine(f"{tmp_path}/readme_bank.py:Bank")
    bank = machine()
    bank.balances["alice"] = 30  # type: ignore[attr-defined]
    assert bank.transfer("alice", "bob", 30) == 0  # type: ignore[attr-defined]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
