"""`outlast check`: verdict, exit code, drawing, report; and one line for whatever is wrong."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from outlast.cli import main
from outlast.kernel import ConfigError


def lines(*events: tuple) -> str:
    """Return events (process, type, f, value, key) as JSON lines."""
    names = ("process", "type", "f", "value", "key")
    return "".join(json.dumps(dict(zip(names, event, strict=False))) + "\n" for event in events)


VALID = lines(
    (0, "invoke", "write", 1), (0, "ok", "write", 1), (1, "invoke", "read"), (1, "ok", "read", 1)
)
STALE = VALID + lines(
    (0, "invoke", "write", 2), (0, "ok", "write", 2), (1, "invoke", "read"), (1, "ok", "read", 1)
)
BANK = '{"model": "bank", "accounts": {"a": 10, "b": 0}}\n' + lines(
    (0, "invoke", "transfer", {"from": "a", "to": "b", "amount": 4, "id": "t1"}),
    (0, "ok", "transfer", {"from": "a", "to": "b", "amount": 4, "id": "t1"}),
    (1, "invoke", "read"), (1, "ok", "read", {"a": 6, "b": 5}),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (("valid", VALID), ("stale", STALE), ("bank", BANK)):
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["check", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_valid_history_says_so_first_and_exits_0(folder, capsys):
    code, out, err = said(capsys, "valid.jsonl", "--model", "register")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("valid: ")
    assert "2 ok, 0 fail, 0 info" in out


def test_an_invalid_history_exits_1_with_reason_and_drawing(folder, capsys):
    code, out, err = said(capsys, "stale.jsonl", "--model", "register")
    assert (code, err) == (1, "")
    assert out.splitlines()[0].startswith("invalid: ")
    assert "[! read -> 1" in out
    assert "has no place in any order" in out
    assert sorted(path.name for path in folder.iterdir()) == [
        "bank.jsonl", "stale.jsonl", "valid.jsonl"
    ]  # fmt: skip


def test_the_first_line_may_name_the_model(folder, capsys):
    code, out, _ = said(capsys, "bank.jsonl")
    assert code == 1
    assert "bank" in out.splitlines()[1]


def test_json_holds_the_verdict_and_the_counter_example(folder, capsys):
    code, out, _ = said(capsys, "stale.jsonl", "--model", "register", "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["schema"], found["verdict"], found["model"]) == (1, "invalid", "register")
    assert found["counts"] == {"ok": 4, "fail": 0, "info": 0}
    example = found["counterexample"]
    (stuck,) = [op for op in example["operations"] if op["index"] == example["stuck"]]
    assert (stuck["f"], stuck["output"], stuck["from"], stuck["to"]) == ("read", 1, 7, 8)
    assert example["reason"]
    code, out, _ = said(capsys, "valid.jsonl", "--model", "register", "--json")
    assert (code, json.loads(out)["counterexample"]) == (0, None)


def test_a_report_is_a_page_or_a_picture_by_its_name(folder, capsys):
    assert said(capsys, "stale.jsonl", "--model", "register", "--report", "r.html")[0] == 1
    page = (folder / "r.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "outlast check stale.jsonl --model register" in page
    assert said(capsys, "stale.jsonl", "--model", "register", "--report", "r.svg")[0] == 1
    root = ElementTree.parse(folder / "r.svg").getroot()  # noqa: S314 - ours
    assert root.tag.endswith("svg")


def test_a_report_of_a_valid_history_is_a_page_that_says_so(folder, capsys):
    assert said(capsys, "valid.jsonl", "--model", "register", "--report", "r.html")[0] == 0
    assert "valid" in (folder / "r.html").read_text(encoding="utf-8")
    code, _, err = said(capsys, "valid.jsonl", "--model", "register", "--report", "r.svg")
    assert code == 0
    assert "no counter-example to draw" in err
    assert not (folder / "r.svg").exists()


def test_a_limit_that_is_reached_is_unknown_and_says_what_would_help(folder, capsys, monkeypatch):
    from outlast import check as room

    def unknown(history, model, **limits):
        assert limits == {"seconds": 0.5, "memory_bytes": 64 << 20}
        why = "0.5 s were not enough; raise --seconds"
        return room.Result("unknown", "register", {"ok": 4}, 1, "linearizable", why, 0.5)

    monkeypatch.setattr(room, "check", unknown)
    arguments = ("valid.jsonl", "--model", "register", "--seconds", "0.5", "--memory", "64")
    code, out, _ = said(capsys, *arguments)
    assert code == 3
    assert out.startswith("unknown: ")
    assert out.rstrip().endswith("raise --seconds")


EDN = """\
{:type :invoke, :f :write, :value ["x" 1], :process 0, :index 0}
{:type :info, :f :start, :value nil, :process :nemesis, :index 1}
{:type :ok, :f :write, :value ["x" 1], :process 0, :index 2}
{:type :invoke, :f :read, :value ["y" nil], :process 1, :index 3}
{:type :ok, :f :read, :value ["y" nil], :process 1, :index 4}
"""


def test_a_history_of_jepsen_is_judged_key_by_key(folder, capsys):
    (folder / "h.edn").write_text(EDN)
    assert said(capsys, "h.edn", "--model", "register")[0] == 0
    assert said(capsys, "h.edn", "--model", "register", "--independent")[0] == 0
    (folder / "h.edn").write_text(EDN.replace('"y"', '"x"'))
    code, out, _ = said(capsys, "h.edn", "--model", "register")
    assert code == 1
    assert "on key x" in out


# --- bad input ---------------------------------------------------------------------------------

WRITE = lines((0, "invoke", "write", 1))


@pytest.mark.parametrize(
    ("data", "arguments", "expected"),
    [
        (b"", [], "history: no operation in it"),
        (b"hello\n", [], "history:1: not JSON"),
        (WRITE.encode() + b"{", [], "history:2: not JSON"),
        (WRITE.encode() * 2, [], "history:2: process 0 invokes"),
        (WRITE.encode() + b'{"process": 1, "type": "ok", "f": "write"}', [], "history:2: ok of"),
        (WRITE.encode() + b'{"process": 1, "type": "done", "f": "x"}', [], 'history:2: "type"'),
        (WRITE.encode() + b'{"type": "ok", "f": "write"}', [], 'history:2: no "process"'),
        (WRITE.encode() + b"[1, 2]", [], "history:2: [1, 2] is not an object"),
        (WRITE.encode() + b"[" * 10_000, [], "history:2: nested more than 64 deep"),
        (WRITE.encode() + b'{"a":' * 900 + b"1" + b"}" * 900, [], "history:2: nested more than"),
        (WRITE.replace("1}", "1" * 5000 + "}").encode(), [], "history:1: not JSON"),
        (WRITE.encode() + b'{"time": NaN}', [], "history:2: not JSON"),
        (WRITE.replace("1}", '1, "time": 1e999}').encode(), [], "history:1: "),
        (b"\x00\xff\xfe" * 30_000, [], "history:1: not JSON"),
        (b"\x80" * 20_000_000, [], "history:1: a line of more than 16 MiB"),
        (lines((0, "invoke", "wriet", 1)).encode(), [], "history:1: "),
        (WRITE.encode(), ["--model", "registre"], "registre"),
        (WRITE.encode(), ["--model", ""], "model"),
        (WRITE.encode(), ["--seconds", "0"], "--seconds is 0"),
        (WRITE.encode(), ["--seconds", "nan"], "--seconds is nan"),
        (WRITE.encode(), ["--memory", "0"], "--memory is 0"),
        (WRITE.encode(), ["--report", "r.pdf"], "--report r.pdf"),
        (WRITE.encode(), ["--report", "no/where/r.html"], "--report no/where/r.html"),
        (b"{:type :invoke :f :read :process 0", [], "history:1: not EDN"),
        (b"{:type :invoke :f :read :process 0}", ["--independent"], "history:1: value None is no"),
        (b'{"model": "bank", "accounts": 3}\n' + WRITE.encode(), ["--model", "bank"], "accounts"),
        (b'{"model": 7}\n' + WRITE.encode(), ["--model", "bank"], "history"),
    ],
)
def test_bad_input_is_one_line_and_exits_2(data, arguments, expected, folder, capsys):
    (folder / "history").write_bytes(data)
    given = arguments if "--model" in arguments else ["--model", "register", *arguments]
    code, out, err = said(capsys, "history", *given)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("outlast: ")
    assert expected in err
    assert "internal error" not in err
    assert len(err) < 500


def test_a_model_that_nobody_knows_is_answered_with_near_ones(folder, capsys):
    code, _, err = said(capsys, "valid.jsonl", "--model", "registre")
    assert code == 2
    assert "registre" in err
    assert "register" in err


def test_a_history_that_names_no_model_is_answered_with_all_of_them(folder, capsys):
    code, _, err = said(capsys, "valid.jsonl")
    assert code == 2
    for name in ("register", "kv", "append", "set", "counter", "bank", "queue"):
        assert name in err


def test_a_file_that_is_not_there_or_no_file_is_one_line(folder, capsys):
    for path in ("nowhere.jsonl", "."):
        code, out, err = said(capsys, path, "--model", "register")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "internal error" not in err


@pytest.mark.timeout(90)
def test_values_that_no_terminal_shows_become_escapes(folder):
    text = lines(
        (0, "invoke", "write", "\x1b[31m\ud800"), (0, "ok", "write", "\x1b[31m\ud800"),
        (1, "invoke", "read"), (1, "ok", "read", "é\u202e"),
    )  # fmt: skip
    (folder / "h").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "outlast", "check", "h", "--model", "register"],
        capture_output=True, check=False, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr.decode()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x80-\xff]", done.stdout)


@pytest.mark.timeout(90)
def test_stdin_is_read_where_the_file_is_a_dash(folder):
    done = subprocess.run(
        [sys.executable, "-m", "outlast", "check", "-", "--model", "register"],
        input=STALE.encode(), capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr.decode()
    assert done.stdout.startswith(b"invalid: ")


def test_the_command_line_does_nothing_that_python_cannot(folder):
    from outlast.check import check, read_history

    result = check(read_history("stale.jsonl"), "register")
    assert (result.verdict, result.exit_code) == ("invalid", 1)
    with pytest.raises(ConfigError, match="register"):
        check(read_history("stale.jsonl"), "registre")
