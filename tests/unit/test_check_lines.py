"""Lines that are no history are named by file and line, with what would be right."""

import io
import json
from typing import Any

import pytest

from outlast.check import MODELS, check, history_of, line_of, parse_lines, read_stream
from outlast.check.reading import DEPTH_MAX, LINE_BYTES_MAX
from outlast.cli import main
from outlast.kernel import ConfigError, HistoryEvent

INVOKE = '{"process": 0, "type": "invoke", "f": "write", "value": 1}'
OK = '{"process": 0, "type": "ok", "f": "write", "value": 1}'
BANK = '{"model": "bank", "accounts": {"a": 10, "b": 10}}'


def event(kind: str, f: str, value: Any = None, process: Any = 0, **more: Any) -> str:
    return json.dumps({"process": process, "type": kind, "f": f, "value": value, **more})


def call(f: str, value: Any, answer: Any, **more: Any) -> list[str]:
    """The two lines of one operation."""
    return [event("invoke", f, value), event("ok", f, answer, **more)]


def complaint(lines: list[str], model: str | None = None) -> str:
    """Return the one line with which the reader or the judge refuses ``lines``."""

    def judge() -> None:
        check(parse_lines(lines, "h.jsonl"), model or "register")

    with pytest.raises(ConfigError) as caught:
        judge()
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 300, said
    return said


MALFORMED = [
    ("half a line", [INVOKE, '{"process": 0'], "h.jsonl:2: not JSON", "one JSON object a line"),
    ("two on a line", [INVOKE + OK], "h.jsonl:1: not JSON (Extra data", "one JSON object a line"),
    ("a word", ["", "hello"], "h.jsonl:2: not JSON", "one JSON object a line"),
    ("not a number", ['{"process": 0, "time": NaN}'], "h.jsonl:1: not JSON (NaN", "one JSON"),
    ("infinity", ['{"process": 0, "time": -Infinity}'], "h.jsonl:1: not JSON (-Inf", "one JSON"),
    ("too large a float", ['{"process": 0, "time": 1e999}'], "h.jsonl:1: not JSON (1e999", ""),
    ("a list", [INVOKE, "[1]"], "h.jsonl:2: [1] is not an object", '{"process": 0'),
    ("a number", ["7"], "h.jsonl:1: 7 is not an object", '{"process": 0'),
    ("null", ["null"], "h.jsonl:1: null is not an object", '{"process": 0'),
    ("no process", [INVOKE, '{"type": "ok", "f": "write"}'], ':2: no "process"', "an integer"),
    ("header second", [INVOKE, BANK], ':2: no "process"', "an integer"),
    ("two headers", [BANK, BANK], ':2: no "process"', "an integer"),
    ("unknown type", [event("begin", "read")], ':1: "type" is "begin"', "ok, fail or info"),
    ("no type", ['{"process": 0, "f": "read"}'], ':1: "type" is null', "invoke, ok, fail or info"),
    ("type in capitals", [event("OK", "read")], ':1: "type" is "OK"', "invoke, ok, fail or info"),
    ("type is a list", [event(["ok"], "read")], ':1: "type" is ["ok"]', "invoke, ok"),
    ("no f", ['{"process": 0, "type": "invoke"}'], ':1: "f" is null', "the name of a function"),
    ("f is a number", [event("invoke", 3)], ':1: "f" is 3', "the name of a function"),
    ("time is text", [event("invoke", "read", time="now")], ':1: "time" is "now"', "nanoseconds"),
    ("ok first", [OK], ":1: ok of process 0 without an invoke", "an invoke before it"),
    ("fail first", [event("fail", "read")], ":1: fail of process 0 without an invoke", ""),
    ("info first", [event("info", "read")], ":1: info of process 0 without an invoke", ""),
    ("ok twice", [INVOKE, OK, OK], ":3: ok of process 0 without an invoke", "an invoke before it"),
    (
        "two at once",
        [INVOKE, "", INVOKE],
        ":3: process 0 invokes while its operation of line 1 is open",
        "a completion first",
    ),
    (
        "invoke after info",
        [INVOKE, event("info", "write"), INVOKE],
        ":3: process 0 ended at its info in line 2",
        "another process number",
    ),
    (
        "ok after info",
        [INVOKE, event("info", "write"), OK],
        ":3: process 0 ended at its info in line 2",
        "another process number",
    ),
    (
        "another f",
        [INVOKE, event("ok", "read")],
        ':2: "f" is "read", but line 1 invoked "write"',
        "the same in both",
    ),
    (
        "another key",
        [event("invoke", "write", 1, key="x"), event("ok", "write", 1, key="y")],
        ':2: "key" is "y", but line 1 invoked "x"',
        "the same in both",
    ),
    (
        "a key only at the end",
        [INVOKE, event("ok", "write", 1, key="y")],
        ':2: "key" is "y", but line 1 invoked null',
        "the same in both",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "what", "right"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_a_malformed_line_is_named_with_what_would_be_right(lines, what, right):
    said = complaint(lines)
    assert said.startswith("h.jsonl:")
    assert what in said
    assert right in said
    assert "would be right" in said


MISFITS = [
    ("register", call("add", 1, 1), ":1: model register has no 'add'", "cas, get, put, read"),
    ("register", call("delete", None, None), ":1: model register has no 'delete'", "write"),
    ("register", call("cas", 1, 1), ":1: cas has the value 1", "[old, new]"),
    ("register", call("cas", [1, 2, 3], 1), ":1: cas has the value [1, 2, 3]", "[old, new]"),
    ("kv", call("append", 1, 1), ":1: append has the value 1", "text"),
    ("kv", call("append", None, None), ":1: append has the value null", "text"),
    ("set", call("remove", 1, 1), ":1: model set has no 'remove'", "add, read"),
    ("set", call("read", None, 3), ":1: read has the value 3", "a list"),
    ("set", call("read", None, {"1": 1}), ':1: read has the value {"1": 1}', "a list"),
    ("counter", call("add", "1", "1"), ':1: add is "1"', "a number"),
    ("counter", call("add", None, None), ":1: add is null", "a number"),
    ("counter", call("add", True, True), ":1: add is true", "a number"),
    ("counter", call("read", None, [1]), ":1: read is [1]", "a number"),
    ("queue", call("pop", None, 1), ":1: model queue has no 'pop'", "dequeue, enqueue"),
    ("append", call("txn", None, None), ":1: txn has the value null", '[["append", "x", 1]'),
    ("append", call("txn", [["w", "x", 1]], []), ':1: txn has the part ["w", "x", 1]', "append"),
    ("append", call("txn", [["r", "x"]], []), ':1: txn has the part ["r", "x"]', "append"),
    ("append", call("txn", [["r", "x", None]], [["r", "x", 1]]), ":1: txn read 1", "a list"),
    ("append", call("txn", [["r", "x", None]], [["r", "y", []]]), ":1: txn asked", "was told"),
    ("append", call("txn", [["r", "x", None]], None), ":1: txn has the value null", "append"),
    ("bank", [BANK, *call("transfer", 5, 5)], ":2: transfer has the value 5", '"from"'),
    ("bank", [BANK, *call("transfer", {"from": "a"}, 1)], ":2: transfer has the value", '"to"'),
    (
        "bank",
        [BANK, *call("transfer", {"from": "a", "to": [1], "amount": 1}, 1)],
        ":2: [1] is no account",
        "a name or an integer",
    ),
    (
        "bank",
        [BANK, *call("transfer", {"from": "a", "to": "b", "amount": "1"}, 1)],
        ':2: amount is "1"',
        "a number",
    ),
    ("bank", [BANK, *call("read", None, 20)], ":2: read has the value 20", "balances by account"),
    ("bank", [BANK, *call("read", None, {"a": "1"})], ':2: balance of a is "1"', "a number"),
    ("bank", call("read", None, {}), ":1: no accounts for the model bank", '"accounts"'),
    (
        "bank",
        ['{"model": "bank", "accounts": {}}', *call("read", None, {})],
        ":1: no accounts for the model bank",
        '"accounts"',
    ),
    (
        "bank",
        ['{"model": "bank", "accounts": {"a": "10"}}', *call("read", None, {})],
        ':1: account a is "10"',
        "a number",
    ),
]


@pytest.mark.parametrize(("model", "lines", "what", "right"), MISFITS)
def test_an_operation_that_does_not_fit_its_model_is_named(model, lines, what, right):
    said = complaint(lines, model)
    assert said.startswith(f"h.jsonl{what}"), said
    assert right in said


@pytest.mark.parametrize(
    "text", ["", "\n\n", '{"model": "register"}\n', event("info", "x", 1, "n")]
)
def test_a_file_without_an_operation_is_bad_input(text, tmp_path, capsys):
    path = tmp_path / "h.jsonl"
    path.write_text(text, encoding="utf-8")
    assert main(["check", str(path), "--model", "register"]) == 2
    assert "no operation in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "what", "right"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_the_command_ends_with_2_and_names_file_and_line(lines, what, right, tmp_path, capsys):
    path = tmp_path / "h.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert main(["check", str(path), "--model", "register"]) == 2
    said = capsys.readouterr()
    assert f"{path}:" in said.err
    assert what.removeprefix("h.jsonl") in said.err
    assert not said.out


def test_a_file_that_is_not_there_and_an_unknown_model_end_with_2(tmp_path, capsys):
    assert main(["check", str(tmp_path / "none.jsonl"), "--model", "register"]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    path = tmp_path / "h.jsonl"
    path.write_text(INVOKE, encoding="utf-8")
    assert main(["check", str(path), "--model", "registr"]) == 2
    assert "register would be right" in capsys.readouterr().err
    assert main(["check", str(path)]) == 2
    assert "--model" in capsys.readouterr().err


# --- what is right -------------------------------------------------------------------------------


def test_empty_lines_unknown_fields_and_any_times_are_let_through():
    lines = [
        "",
        '{"process":0,"type":"invoke","f":"write","value":1,"time":9,"index":0,"node":"n1"}',
        "   ",
        '{"process":1,"type":"invoke","f":"read","time":null}\r\n',
        '{"process":0,"type":"ok","f":"write","value":1,"time":3.5}',
        '{"process":1,"type":"ok","f":"read","value":1}',
    ]
    history = parse_lines(lines)
    assert [(op.f, op.start, op.end) for op in history.operations] == [
        ("write", 2, 5),
        ("read", 4, 6),
    ]
    assert check(history, "register").valid


def test_bytes_and_a_mark_of_their_order_are_read():
    history = parse_lines([b"\xef\xbb\xbf" + INVOKE.encode(), OK.encode()])
    assert history.counts == {"ok": 1, "fail": 0, "info": 0}


def test_bytes_that_are_no_text_are_named():
    with pytest.raises(ConfigError, match=r"^h\.jsonl:2: not JSON .*would be right$"):
        parse_lines([INVOKE.encode(), b'{"f": "\xff"}'], "h.jsonl")


@pytest.mark.parametrize("process", ["nemesis", None, 1.5, True, [0], {"n": 1}])
def test_a_process_that_is_no_integer_is_ignored_whatever_it_says(process):
    odd = json.dumps({"process": process, "type": 5, "f": None, "time": "x"})
    history = parse_lines([odd, INVOKE, odd, OK, odd])
    assert history.invoked == 1


def test_a_process_below_zero_is_a_process():
    assert parse_lines([event("invoke", "read", process=-1)]).invoked == 1


def test_a_completion_may_leave_key_and_value_out():
    lines = [
        event("invoke", "write", 1, key="x"),
        '{"process": 0, "type": "ok", "f": "write"}',
        event("invoke", "read", key="x"),
        '{"process": 0, "type": "ok", "f": "read", "value": 1}',
    ]
    (write, read) = parse_lines(lines).operations
    assert (write.key, write.value, read.key, read.output) == ("x", 1, "x", 1)


def test_operations_are_in_order_of_invocation_and_fails_are_only_counted():
    lines = [
        event("invoke", "write", 1, process=0),
        event("invoke", "write", 2, process=1),
        event("invoke", "write", 3, process=2),
        event("ok", "write", 2, process=1),
        event("fail", "write", 1, process=0),
        event("info", "write", 3, process=2),
        event("invoke", "read", process=0),
    ]
    history = parse_lines(lines)
    assert [(op.index, op.value, op.kind, op.start, op.end) for op in history.operations] == [
        (0, 2, "ok", 2, 4),
        (1, 3, "info", 3, None),
        (2, None, "info", 7, None),
    ]
    assert history.counts == {"ok": 1, "fail": 1, "info": 2}
    assert history.invoked == 4


def test_a_cas_says_in_its_output_whether_it_swapped():
    lines = [*call("cas", [1, 2], [1, 2]), *call("cas", [1, 2], [1, 2], result=False)]
    lines += call("cas", [1, 2], [1, 2], result=True)
    assert [op.output for op in parse_lines(lines).operations] == [True, False, True]


def test_the_first_line_may_name_model_and_accounts_after_empty_ones():
    history = parse_lines(["", BANK, *call("read", None, {"a": 10, "b": 10})])
    assert history.header["model"] == "bank"
    assert check(history, "bank").valid


def test_a_first_line_with_a_process_is_an_event():
    with pytest.raises(ConfigError, match=r'^history:1: "type" is null'):
        parse_lines(['{"process": 0, "model": "bank"}'])


# --- events of a drill ---------------------------------------------------------------------------


def test_events_are_refused_as_lines_are_and_named_by_their_position():
    events = [HistoryEvent(0, "invoke", "read"), HistoryEvent(0, "invoke", "read")]
    with pytest.raises(ConfigError, match=r"^history:2: process 0 invokes while .* line 1"):
        history_of(events)
    with pytest.raises(ConfigError, match=r"^live:40: process 0 invokes while .* line 30"):
        history_of(events, name="live", positions=[30, 40])


def test_events_written_as_lines_are_read_as_the_same_history():
    events = [
        HistoryEvent(0, "invoke", "cas", [None, "é\n"], "x", 5),
        HistoryEvent("nemesis", "info", "cut", {"halves": [1, 2]}, None, 6),
        HistoryEvent(0, "ok", "cas", [None, "é\n"], "x", 7, False),
        HistoryEvent(1, "invoke", "read", None, "x", 8),
        HistoryEvent(1, "info", "read", None, "x", 9),
    ]
    lines = [line_of(event) for event in events]
    assert not any("\n" in line for line in lines)
    assert parse_lines(lines) == history_of(events)


# --- bounds --------------------------------------------------------------------------------------


def test_a_line_longer_than_the_bound_is_refused_and_named():
    long = INVOKE.encode() + b"\n" + b'{"x": "' + b"y" * LINE_BYTES_MAX + b'"}\n'
    with pytest.raises(ConfigError, match=r"^h:2: a line of more than 16 MiB"):
        read_stream(io.BytesIO(long), "h")


def test_nesting_beyond_the_bound_is_refused_and_brackets_in_text_are_not_nesting():
    deep = "[" * DEPTH_MAX + "]" * DEPTH_MAX
    with pytest.raises(ConfigError, match=r"^h:1: nested more than 64 deep"):
        read_stream(io.BytesIO(f'{{"process": "n", "value": {deep}}}\n'.encode()), "h")
    text = event("invoke", "write", "[" * 1000 + '"{')
    assert read_stream(io.BytesIO(text.encode()), "h").invoked == 1


def test_very_deep_nesting_of_a_line_is_an_error_and_no_crash():
    with pytest.raises(ConfigError, match=r"^history:1: not JSON"):
        parse_lines(["[" * 200_000])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seconds": 0}, "seconds is 0; a number above 0"),
        ({"seconds": -1.0}, "seconds is -1.0; a number above 0"),
        ({"seconds": float("nan")}, "seconds is nan; a number above 0"),
        ({"memory_bytes": 1000}, "memory_bytes is 1000; at least 1048576"),
    ],
)
def test_limits_out_of_range_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        check(parse_lines([INVOKE, OK]), "register", **options)


@pytest.mark.parametrize("model", [name for name in MODELS if name != "bank"])
def test_an_empty_history_of_a_library_call_is_valid_and_says_so(model):
    result = check(parse_lines([]), model)
    assert result.valid
    assert "no operation was judged" in result.why
