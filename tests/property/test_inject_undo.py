"""Journals are read as they were written, cut at any byte, and with any byte changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.inject.core.undo import (
    Continue,
    Header,
    KillMarked,
    ProcessId,
    RemoveFile,
    RemoveTree,
    Unmount,
    done_line,
    drill_id,
    header_line,
    read_journal,
    tagged_root,
    undo_line,
)
from outlast.kernel import ConfigError

OWNER = ProcessId(4242, 777)
HEADER = Header(drill_id(OWNER, 5), OWNER, "boot/pid:[1]", 12)
PATHS = st.sampled_from(["/tmp/a", "/srv/ü b/c", "/x\ny"])
PROCESSES = st.builds(ProcessId, st.integers(2, 1 << 22), st.integers(0, 1 << 40))
UNDOS = st.one_of(
    st.just(KillMarked()),
    st.builds(Continue, st.lists(PROCESSES, max_size=3).map(tuple)),
    st.builds(RemoveTree, PATHS),
    st.builds(RemoveFile, PATHS),
    st.builds(Unmount, PATHS),
)


@st.composite
def journals(draw):
    """Return lines with the undos that are open after them."""
    lines, open_undos = [header_line(HEADER)], {}
    for number, undo in enumerate(draw(st.lists(UNDOS, max_size=6)), 1):
        lines.append(undo_line(number, undo))
        open_undos[number] = undo
        if draw(st.booleans()):
            done = draw(st.sampled_from(sorted(open_undos)))
            lines.append(done_line(done))
            del open_undos[done]
    return lines, tuple(open_undos.items())


@given(journals())
def test_what_was_written_is_read(journal):
    lines, expected = journal
    text = read_journal(b"".join(lines), "j")
    assert text is not None
    assert (text.header, text.open, text.torn, text.damage) == (HEADER, expected, False, ())


@given(journals(), st.data())
def test_a_journal_cut_at_any_byte_says_what_its_whole_lines_say(journal, data):
    lines, _ = journal
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    text = read_journal(whole[:cut], "j")
    sound = whole[:cut].rfind(b"\n") + 1
    if sound == 0:
        assert text is None
        return
    assert text is not None
    before = read_journal(whole[:sound], "j")
    assert before is not None
    assert (text.open, text.torn, text.damage) == (before.open, cut > sound, ())


@given(journals(), st.data())
def test_a_changed_byte_never_makes_another_undo(journal, data):
    lines, _ = journal
    whole = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    written = {line for line in lines if b'"undo"' in line}
    try:
        text = read_journal(bytes(whole), "j")
    except ConfigError:
        return
    if text is not None:
        assert {undo_line(number, undo) for number, undo in text.open} <= written


@pytest.mark.parametrize(
    "path",
    ["tmp/a", "/", "", "/tmp/../etc", "/tmp/./a", "/tmp//a", "/tmp/a/"],
)
def test_a_path_that_is_not_plain_is_damage(path):
    text = read_journal(header_line(HEADER) + undo_line(1, RemoveTree(path)), "j")
    assert text is not None
    assert text.open == ()
    assert "is not absolute and plain" in text.damage[0]


def test_init_and_negative_pids_are_damage():
    for pid in (0, 1, -5):
        line = undo_line(1, Continue((ProcessId(pid, 5),)))
        text = read_journal(header_line(HEADER) + line, "j")
        assert text is not None
        assert text.open == ()
        assert "pairs of pid and start" in text.damage[0]


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/tmp/outlast-drill-7a-data", "/tmp/outlast-drill-7a-data"),
        ("/tmp/outlast-drill-7a-data/n1/log", "/tmp/outlast-drill-7a-data"),
        ("/tmp/outlast-drill-7a", "/tmp/outlast-drill-7a"),
        ("/tmp/outlast-drill-7ab-data", None),
        ("/tmp/outlast-drill-7", None),
        ("/tmp/x-outlast-drill-7a", None),
        ("/tmp/outlast-drill-7a-data/../x", None),
        ("outlast-drill-7a-data", None),
        ("/", None),
    ],
)
def test_only_paths_that_carry_the_drills_id_are_its_own(path, root):
    assert tagged_root(path, "7a") == root
