"""Histories of Jepsen and Knossos: what they mean here, and which line is wrong."""

import io
import sys

import pytest

from outlast.check.edn import DEPTH_MAX, FORM_CHARS_MAX, looks_like_edn, read_edn
from outlast.check.jepsen import read_jepsen
from outlast.check.reading import LINE_BYTES_MAX, read_history, read_stream
from outlast.kernel import ConfigError

REGISTER = """\
{:type :invoke, :f :read, :value nil, :process 0, :time 10629925, :index 0}
{:type :info, :f :start, :value nil, :process :nemesis, :time 10700000, :index 1}
{:type :invoke, :f :cas, :value [0 4], :process 1, :time 10910742, :index 2}
{:type :ok, :f :read, :value 3, :process 0, :time 11022831, :index 3}
{:type :fail, :f :cas, :value [0 4], :process 1, :time 11533831, :index 4, :error :differs}
{:type :info, :f :start, :value {:cut #{"n1" "n2"}, :w ##NaN}, :process :nemesis, :index 5}
{:type :invoke, :f :write, :value 1, :process 2, :time 12000000, :index 6}
{:type :info, :f :write, :value 1, :process 2, :time 13000000, :index 7, :error [:timeout "x"]}
"""


def ops(text, **options):
    return [
        (op.process, op.f, op.key, op.value, op.output, op.kind, op.start, op.end)
        for op in read_jepsen(text, "h.edn", **options).operations
    ]


def complaint(text, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        read_jepsen(text, "h.edn", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_maps_one_per_line_are_paired_and_a_nemesis_is_left_out():
    history = read_jepsen(REGISTER, "h.edn")
    assert ops(REGISTER) == [
        (0, "read", None, None, 3, "ok", 1, 4),
        (2, "write", None, 1, None, "info", 7, None),
    ]
    assert dict(history.counts) == {"ok": 1, "fail": 1, "info": 1}
    assert history.operations[0].start_ns == 10629925


@pytest.mark.parametrize(("opening", "closing"), ["[]", "()", ("; run 7\n[\n", "] ; end\n")])
def test_one_vector_of_maps_is_the_same_history(opening, closing):
    said = [op[:6] for op in ops(opening + REGISTER + closing)]
    assert said == [op[:6] for op in ops(REGISTER)]


def test_records_of_newer_versions_are_maps():
    tagged = REGISTER.replace("{:type", "#jepsen.history.Op{:type")
    assert ops(tagged) == ops(REGISTER)
    assert ops(REGISTER.replace("{:type", "#knossos.op.Op {:type")) == ops(REGISTER)


def test_fields_in_any_order_without_times_are_enough():
    text = "{:process 0 :type :invoke :f :write :value 3}{:process 0 :type :ok :f :write :value 3}"
    assert ops(text) == [(0, "write", None, 3, 3, "ok", 1, 2)]


def pairs(read: str) -> str:
    return (
        f'{{:process 0 :type :invoke :f :read :value {read}["x" nil]}}\n'
        f'{{:process 1 :type :invoke :f :cas :value {read}["y" [1 2]]}}\n'
        f'{{:process 0 :type :ok :f :read :value {read}["x" 3]}}\n'
        f'{{:process 1 :type :ok :f :cas :value {read}["y" [1 2]]}}\n'
    )


KEYED = [
    (0, "read", "x", None, 3, "ok", 1, 3),
    (1, "cas", "y", [1, 2], True, "ok", 2, 4),
]


def test_values_that_are_all_pairs_are_a_key_and_a_value():
    assert ops(pairs("")) == KEYED


def test_a_tag_marks_a_pair_whatever_the_others_look_like():
    assert ops(pairs("#jepsen.independent.Tuple")) == KEYED
    assert ops(pairs("#clojure.lang.MapEntry ")) == KEYED


def test_saying_so_makes_pairs_of_what_looks_like_values():
    text = (
        "{:process 0 :type :invoke :f :cas :value [[1 2] [3 4]]}\n"
        "{:process 0 :type :ok :f :cas :value [[1 2] [3 4]]}"
    )
    assert ops(text)[0][2:4] == (None, [[1, 2], [3, 4]])
    assert ops(text, independent=True)[0][2:4] == ([1, 2], [3, 4])


def test_saying_so_about_a_value_that_is_no_pair_names_its_line():
    said = complaint(REGISTER, independent=True)
    assert said.startswith("h.edn:1: value None is no [key value]")


@pytest.mark.parametrize(
    "values",
    [
        ("[0 4]", "[0 4]", "cas"),  # old and new
        ("[[:r 1 nil] [:append 1 2]]", "[[:r 1 []] [:append 1 2]]", "txn"),
        ("nil", "[1 2]", "read"),  # a set of two
    ],
)
def test_two_values_that_are_no_key_and_value_stay_together(values):
    invoked, answered, f = values
    text = (
        f"{{:process 0 :type :invoke :f :{f} :value {invoked}}}\n"
        f"{{:process 0 :type :ok :f :{f} :value {answered}}}"
    )
    assert ops(text)[0][2] is None


def test_micro_operations_keep_their_names_without_colons():
    text = (
        "{:process 0 :type :invoke :f :txn :value [[:r 1 nil] [:append 1 2]]}\n"
        "{:process 0 :type :ok :f :txn :value [[:r 1 [5]] [:append 1 2]]}"
    )
    assert ops(text)[0][3:5] == (
        [["r", 1, None], ["append", 1, 2]],
        [["r", 1, [5]], ["append", 1, 2]],
    )


def test_values_become_what_json_could_hold():
    text = (
        "{:process 0 :type :invoke :f :write :value"
        ' {:a #{300 1 22} :b 4/2 :c 1.50M :d \\x :e (1 sym) "f" true 7 3/4 :g \\newline}}'
    )
    assert ops(text)[0][3] == {
        "a": [1, 22, 300], "b": 2, "c": 1.5, "d": "x", "e": [1, "sym"], "f": True, 7: 0.75,
        "g": "\n",
    }  # fmt: skip


def test_a_first_map_that_is_no_event_is_the_header():
    text = '{:model "bank" :accounts {"a" 10}}\n' + REGISTER
    history = read_jepsen(text, "h.edn")
    assert history.header == {"model": "bank", "accounts": {"a": 10}}
    assert history.operations[0].start == 2


def test_comments_and_what_is_discarded_are_no_events():
    text = "; run 7\n\n" + REGISTER + "#_{:process 9 :type :strange}\n"
    assert [op[0] for op in ops(text)] == [0, 2]
    assert ops(text)[0][6] == 3


EVENT = "{:process 0 :type :invoke :f :read}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (EVENT + "\n{:process 0 :type :ok", "h.edn:3: not EDN: the text ends inside"),
        (EVENT + "}", "h.edn:2: not EDN: '}' closes nothing"),
        (EVENT + "{:process}", "h.edn:2: not EDN: Even number"),
        (EVENT + '{:f "', "h.edn:2: not EDN: '\"' begins nothing that ends"),
        ("[" + EVENT + "] " + EVENT, "h.edn:2: something follows"),
        (EVENT + "[" + EVENT + "]", "h.edn:2: '[{"),
        (EVENT + "{:a #}", "h.edn:2: not EDN"),
        (EVENT + "{:process 0 :type :ok :f :read :value 1/0}", "h.edn:2: not EDN"),
        (EVENT + "{:process 0 :type :ok :f :read :value ##NaN}", "h.edn:2: nan is not a number"),
        (EVENT + "{:process 0 :type :ok :f :read :value 1e999}", "h.edn:2: inf is not a number"),
        (EVENT + "{:process 0 :type :ok :f :read :value 1M1}", "h.edn:2: not EDN"),
        (EVENT + f"{{:process 0 :type :ok :f :read :value {'9' * 5000}}}", "h.edn:2: not EDN"),
        (EVENT + f"{{:process 0 :type :ok :f :x :value 0x{'f' * 5000}}}", "h.edn:2: a number too"),
        (EVENT + "{:process 0 :type :ok :f :x :value 1e9M99}", "h.edn:2: not EDN"),
        (EVENT + "{:process 0 :type :okay :f :read}", "h.edn:2: type 'okay'; expected :invoke"),
        (EVENT + "{:process 0 :type :ok}", "h.edn:2: an event without :f"),
        (EVENT + "42", "h.edn:2: '42' is no event"),
        (EVENT + "\n" + EVENT, "h.edn:3: process 0 invokes while its operation of line 1"),
        ("[" + EVENT.strip() * 2 + "]", "h.edn: event:2: process 0 invokes while"),
        ("[" * 3, "h.edn:1: not EDN: the text ends inside"),
        (EVENT + "{:a " * (DEPTH_MAX + 1), f"h.edn:2: an event of more than {DEPTH_MAX} levels"),
        ("{:a " + "x" * FORM_CHARS_MAX, "h.edn:1: an event of more than"),
        ("\x00\x01", "h.edn:1: not EDN"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_line(text, said):
    assert complaint(text).startswith(said)


@pytest.mark.parametrize("before", [0, 1, 14, 15, 16, 100])
def test_a_wrong_line_is_found_wherever_it_stands_in_its_batch(before, monkeypatch):
    monkeypatch.setattr("outlast.check.edn._BATCH", 32)
    good = "{:process 0 :type :invoke :f :read}\n{:process 0 :type :ok :f :read :value 1}\n"
    text = good * before + "{:a}\n" + good * 40
    assert complaint(text).startswith(f"h.edn:{2 * before + 1}: not EDN")


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "edn_format", None)
    assert 'pip install "outlast[edn]"' in complaint(EVENT)


@pytest.mark.parametrize(
    ("head", "edn"),
    [
        ("{:type", True),
        ("  [{:type", True),
        ("; comment\n{:type", True),
        ("#jepsen.history.Op{:index", True),
        ("[#jepsen.history.Op{:index", True),
        ('{"type"', False),
        ('[{"type"', False),
        ("", False),
        ("{}", False),
    ],
)
def test_edn_is_told_from_json_by_its_first_event(head, edn):
    assert looks_like_edn(head) is edn


def test_a_tag_that_nobody_knows_is_left_out():
    assert next(iter(read_edn("#other/tag [1 2]")))[1] == 1
    assert ops("[#other/tag{:process 0 :type :invoke :f :read}]")[0][1] == "read"


# --- files -------------------------------------------------------------------------------------

JSON = (
    b'{"process": 0, "type": "invoke", "f": "write", "value": 1}\n'
    b'{"process": 0, "type": "ok", "f": "write", "value": 1}\n'
)


def test_a_file_is_read_in_the_notation_that_it_is_written_in(tmp_path):
    for name, data in (("h.jsonl", JSON), ("h.edn", REGISTER.encode()), ("h", REGISTER.encode())):
        (tmp_path / name).write_bytes(data)
    assert read_history(tmp_path / "h.jsonl").operations[0].f == "write"
    assert read_history(tmp_path / "h.edn").operations == read_history(tmp_path / "h").operations


@pytest.mark.parametrize("many", [1, 2, 1000, 2000])
def test_lines_keep_their_numbers_wherever_the_first_block_ends(many):
    lines = b"".join(
        JSON.replace(b'"process": 0', b'"process": %d' % process) for process in range(many)
    )
    history = read_stream(io.BytesIO(lines), "h")
    assert [op.end for op in history.operations] == [2 * n for n in range(1, many + 1)]
    with pytest.raises(ConfigError, match=f"^h:{2 * many + 1}: not JSON"):
        read_stream(io.BytesIO(lines + b"{nonsense"), "h")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "h: no operation in it"),
        (b"\n\n  \n", "h: no operation in it"),
        (b'{"model": "kv"}\n', "h: no operation in it"),
        (b"{:type :info :f :start :process :nemesis}", "h: no operation in it"),
        (b"\xff\xfe\x00\x01" * 1000, "h:1: "),
        (b"{:type :invoke}\n\xff", "h:2: not UTF-8"),
        (JSON + b"[" * 5000, "h:3: nested more than 64 deep"),
        (JSON + b'{"a":' * 100 + b"1" + b"}" * 100, "h:3: nested more than 64 deep"),
        (JSON + b'"' + b"x" * (LINE_BYTES_MAX + 1), "h:3: a line of more than 16 MiB"),
        (b"a" * (LINE_BYTES_MAX + 70_000), "h:1: a line of more than 16 MiB"),
        (JSON + b"NaN", "h:3: not JSON"),
        (JSON + b"9" * 5000, "h:3: not JSON"),
    ],
)
def test_a_hostile_file_is_one_line_too(data, said):
    with pytest.raises(ConfigError) as caught:
        read_stream(io.BytesIO(data), "h")
    assert str(caught.value).startswith(said)
    assert len(str(caught.value)) < 400


def test_brackets_inside_strings_are_not_nesting():
    value = b"[{" * 500
    data = JSON.replace(b'"value": 1', b'"value": "' + value + b'"')
    assert read_stream(io.BytesIO(data), "h").operations[0].value == value.decode()
