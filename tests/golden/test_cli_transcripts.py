"""What the command line prints, as text: help, and one line for whatever is wrong."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from outlast.cli import main

HERE = Path(__file__).parent
HELP = [
    "--help", "serve --help", "node --help", "init --help", "demo --help", "drill --help",
    "call --help", "status --help", "member --help", "member add --help", "member remove --help",
    "transfer-leader --help", "check --help", "lint --help", "policies --help",
    "data --help", "data check --help",
]  # fmt: skip
ERRORS = [
    "srve",
    "serve",
    "serve nowhere.py:Bank",
    "serve bnk.py:Bank",
    "serve bank.py:Bnk",
    "serve bank.py:Bank --nodes three",
    "serve bank.py:Bank --nodes 0",
    "serve bank.py:Bank --nods 3",
    "serve bank.py:Bank --storage tape",
    "serve bank.py:Bank --health 7480",
    "serve broken.py:Bank",
    "node bank.py:Bank --id n1 --data n1 --listen 0.0.0.0:7400",
    "node bank.py:Bank --id n1 --data n1 --listen 7400",
    "node bank.py:Bank --id 'n 1' --data n1 --listen 127.0.0.1:7400",
    "node bank.py:Bank --id n1 --data n1 --listen 127.0.0.1:7400 --peers n1:7400",
    "node bank.py:Bank --id n1 --data n1 --listen 127.0.0.1:7400 --peers n1=a:1,n1=b:1",
    "node bank.py:Bank --id n1 --data n1 --listen 127.0.0.1:7400 --route n2",
    "node bank.py:Bank --id n1 --data n1 --listen 127.0.0.1:7400 --route n2=a:1 --route n2=b:1",
    "node bank.py:Bank --id n1 --data n1 --listen 127.0.0.1:7400 --tls-cert n1.pem",
    "node bank.py:Bank --id n1 --data n1 --listen 127.0.0.1:7400 --tokens none.txt",
    "init --id n1 --peers n1 --data n1",
    "init --id n4 --peers n1=a:1,n2=b:1 --data n4",
    "init --id n1 --peers n1=a:1,n2=b:1 --cluster c-1 --data n1",
    "init --id n1 --peers n1=a:1,n2=b:1 --cluster c-1 --data n1",
    "init --id n2 --peers n1=a:1,n2=b:1 --cluster c-1 --data . --json",
    "init --id n2 --peers n1=a:1,n2=b:1 --cluster c-1 --data n2 --json",
    "demo --seconds 1",
    "demo --nodes 0",
    "drill bnk",
    "drill none.py:Shop",
    "drill --faults partition:halfs",
    "drill --faults crash@everyone",
    "drill --faults clock:skew",
    "drill --seconds -1",
    "drill --nodes 12",
    "drill --target broken-ack-early",
    "drill bank.py:Bank",
    "drill --report nowhere/report.html",
    "drill --workers 4",
    "drill --world sim --workers 4",
    "call",
    "call deposit '{\"account\"'",
    "call deposit '[1, 2]'",
    "call deposit {} --at localhost",
    "call deposit {} --at n1.example:7400",
    "call deposit {} --tls-cert cli.pem",
    "call balances --query --at 127.0.0.1:1 --timeout 1",
    "status --at 127.0.0.1:1 --timeout 1",
    "status --at 127.0.0.1:1 --timeout 1 --json",
    "member add n4 --address 127.0.0.1:7403 --at 127.0.0.1:1",
    "member add n4",
    "member add 'n 4' --address 127.0.0.1:7403",
    "member remove n4 --at localhost:seven",
    "transfer-leader n2 --at 127.0.0.1:1",
    "check",
    "check nowhere.jsonl --model kv",
    "check bank.py --model kv",
    "check empty.jsonl --model kv",
    "check history.jsonl",
    "check history.jsonl --model registre",
    "check history.jsonl --model queue",
    "check history.jsonl --model register --seconds 0",
    "check history.jsonl --modle register",
    "check history.jsonl --model register --report stale.pdf",
    "check torn.jsonl --model register",
    "lint bank.py:Bank",
    "lint bank.py:Bank --json",
    "lint sets.py:Bank",
    "lint bank.py:Bank --against nowhere",
    "lint bank.py:Bank --against n1",
    "policies nowhere",
    "policies bank.py:Bank",
    "policies bank.py:Bnk",
    "policies --config nowhere.toml",
    "policies --url bank.py",
    "data check nowhere",
    "data check n1",
]
BANK = """
from dataclasses import dataclass, field
from outlast import StateMachine, Table, command

@dataclass
class Bank(StateMachine):
    balances: Table[str, int] = field(default_factory=Table)

    @command
    def deposit(self, account: str, amount: int) -> int:
        self.balances[account] = self.balances.get(account, 0) + amount
        return self.balances[account]
"""

HISTORY = """\
{"process": 0, "type": "invoke", "f": "write", "value": 1}
{"process": 0, "type": "ok", "f": "write", "value": 1}
{"process": 1, "type": "invoke", "f": "read", "value": null}
{"process": 1, "type": "ok", "f": "read", "value": null}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bank.py").write_text(BANK)
    (tmp_path / "broken.py").write_text("import outlast\nx = 1 / 0\n")
    sets = BANK.replace("Table[str, int] = field(default_factory=Table)", "set[str]")
    (tmp_path / "sets.py").write_text(sets)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "history.jsonl").write_text(HISTORY)
    (tmp_path / "torn.jsonl").write_text(HISTORY[:-20])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("bank", "broken", "sets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("COLUMNS", "98")
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


def transcript(commands: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    parts = []
    for command in commands:
        code = main(shlex.split(command))
        out, err = capsys.readouterr()
        said = "".join(
            f"{mark}{line.rstrip()}".rstrip() + "\n"
            for mark, text in (("", out), ("! ", err))
            for line in text.rstrip().splitlines()
        )
        parts.append(f"$ outlast {command}\n{said}[{code}]\n")
    return "\n".join(parts)


def test_help_is_the_reviewed_one(
    golden: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden(HERE / "cli_help.txt", transcript(HELP, capsys))


@pytest.mark.timeout(240)
def test_whatever_is_wrong_is_one_line(
    golden: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = transcript(ERRORS, capsys).replace(str(folder), "DIR")
    said = re.sub(r"Errno \d+", "Errno N", said)
    golden(HERE / "cli_errors.txt", said)
    assert all(part.count("\n! ") <= 1 for part in said.split("$ outlast"))
    assert "Traceback" not in said
    assert "internal error" not in said
