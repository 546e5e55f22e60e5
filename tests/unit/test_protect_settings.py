"""Settings of live policies: changed all or none, kept for later, state stays."""

import os
import sys
import types
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from outlast import sim
from outlast.host import default_world
from outlast.kernel import CircuitOpenError, ConfigError, Event, registry
from outlast.protect.adaptive_rate import AdaptiveRate
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.budget import Budget
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.core.window import CountWindow, TimeWindow
from outlast.protect.events import SettingsChanged
from outlast.protect.policy import Policy
from outlast.protect.retry import Retry
from outlast.protect.settings import (
    configure,
    forget_settings,
    kept_settings,
    origin_of,
    policy_from_settings,
    read_file,
)
from outlast.protect.shared import shared_of
from outlast.protect.store import MemoryStore, SqliteStore


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [name for name in os.environ if name.startswith("OUTLAST_POLICIES_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_live", {})  # Those of other tests may not be collected yet.
    forget_settings()
    yield tmp_path
    forget_settings()


def rates(name: str = "rates", **more: Any) -> Policy:
    parts: dict[str, Any] = {
        "retry": Retry(on=OSError),
        "breaker": CircuitBreaker(failure_threshold=2),
        "limit": Bulkhead(20, queue=5),
    }
    return Policy(name, timeout=5.0, **{**parts, **more})


def refused(settings: Any, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        configure(settings, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- changing ----------------------------------------------------------------------------------


def test_settings_of_a_live_policy_are_changed_and_what_changed_is_told() -> None:
    policy = rates()
    heard: list[Event] = []
    end = default_world().events.subscribe(heard.append)  # type: ignore[attr-defined]
    changed = configure({"rates": {"timeout": 2, "retry": {"attempts": 5, "base": 0.1}}})
    end()
    assert (policy.timeout, policy.parts["retry"].attempts) == (2.0, 5)
    assert [(one.key, one.before, one.after, one.origin) for one in changed] == [
        ("policies.rates.timeout", 5.0, 2.0, "configure"),
        ("policies.rates.retry.attempts", 3, 5, "configure"),
    ]
    keys = ("policies.rates.timeout", "policies.rates.retry.attempts")
    assert heard == [SettingsChanged(name="rates", keys=keys)]
    assert configure({"rates": {"timeout": 2}}) == ()


def test_state_stays_when_settings_change() -> None:
    async def main() -> None:
        policy = rates()

        async def fail() -> None:
            raise OSError("down")

        for _ in range(2):
            with suppress(OSError, CircuitOpenError):
                await policy.call(fail)
        breaker = policy.parts["breaker"]
        assert breaker.state == "OPEN"
        configure({"rates": {"breaker": {"recovery_timeout": 99}, "retry.attempts": 1}})
        assert breaker.state == "OPEN"
        assert breaker.recovery_timeout == 99
        assert sum(policy.snapshot()["calls"].values()) >= 2

    sim.run(main)


def test_every_policy_of_a_name_is_changed() -> None:
    policies = [rates(), rates()]
    configure({"rates": {"timeout": 1.5}})
    assert [policy.timeout for policy in policies] == [1.5, 1.5]


def test_a_window_is_one_value_and_exceptions_are_dotted_names() -> None:
    policy = rates()
    configure({"rates": {"breaker.window": {"calls": 10}, "retry.on": "httpx.TransportError"}})
    breaker, retry = policy.parts["breaker"], policy.parts["retry"]
    assert isinstance(breaker.window, CountWindow)
    assert retry.on.__name__ == "TransportError"
    configure({"rates": {"breaker.window": {"seconds": 9}, "retry.on": ["OSError", "KeyError"]}})
    assert isinstance(breaker.window, TimeWindow)
    assert retry.on == (OSError, KeyError)


def test_a_function_is_imported_by_name() -> None:
    policy = rates()
    configure({"rates": {"retry.on": {"import": "asyncio:iscoroutine"}}})
    import asyncio

    assert policy.parts["retry"].on is asyncio.iscoroutine


def test_a_budget_inside_of_a_part_is_changed_as_well() -> None:
    budget = Budget(0.1, name="shared")
    policy = rates(retry=Retry(on=OSError, budget=budget))
    kept = rates("other", retry=Retry(on=OSError, budget=budget))
    configure({"rates": {"retry.budget": {"ratio": 0.3, "window": 5}}})
    assert (budget.ratio, budget.window) == (0.3, 5.0)
    assert kept.parts["retry"].budget is policy.parts["retry"].budget is budget


@pytest.mark.parametrize(
    ("below", "message"),
    [
        ({"timeout": -1}, "policies.rates.timeout is -1.0; seconds above 0, or None for no limit"),
        ({"timeout": "x"}, "policies.rates.timeout is 'x'; a number or none would be right"),
        ({"timeout": True}, "policies.rates.timeout is True; a number or none would be right"),
        (
            {"retry": {"attempts": "three"}},
            "policies.rates.retry.attempts is 'three'; a whole number or none would be right",
        ),
        ({"retry": {"attempts": 0}}, "policies.rates.retry.attempts is 0; it counts"),
        ({"retry": {"atempts": 1}}, "policies.rates.retry.atempts: no setting 'atempts'; did you"),
        ({"retry": {"base": 10}}, "policies.rates.retry.base = 10: Backoff: cap (5.0 s) is below"),
        ({"retry": {"on": "httpx.TransportErr"}}, "did you mean TransportError?"),
        ({"retry": {"on": "nowhere.Error"}}, "cannot import 'nowhere'"),
        ({"retry": {"on": "Nothing"}}, "no 'Nothing' in builtins; write module.Name"),
        ({"retry": {"on": [3]}}, "names of exception classes would be right"),
        ({"retry": {"on": ["OSError", "len"]}}, "len is no exception class"),
        (
            {"retry": {"on": "KeyboardInterrupt"}},
            "policies.rates.retry.on names KeyboardInterrupt",
        ),
        ({"retry": {"base": {"x": 1}}}, "policies.rates.retry.base.x: base has nothing below it"),
        ({"retry": {"jitter": "ful"}}, "full or equal or decorrelated or none would be right"),
        ({"retry": {"budget": {"ratio": 1}}}, "policies.rates.retry.budget: this retry has no"),
        ({"hedge": {"after": 1}}, "policy 'rates' has no hedge; there is retry, breaker, limit"),
        ({"limit": {"kind": "adaptive"}}, "policies.rates.limit.kind is 'adaptive'; it is a Bulk"),
        ({"limit": {"kind": "adaptve"}}, "policies.rates.limit.kind is 'adaptve'; did you mean"),
        ({"breaker": {"counts": "KeyError"}}, "it cannot change while the part is used"),
        ({"breaker": {"window": {"calls": -1}}}, "policies.rates.breaker.window.calls: CountWin"),
        ({"breaker": {"window": {"calls": "x"}}}, "window.calls: CountWindow: size is 'x'; 1 to"),
        ({"breaker": {"window": 30}}, "policies.rates.breaker.window is 30; a window is {calls ="),
        ({"breaker": {"window": {"size": 3}}}, "a window is {calls = 100} or {seconds = 30}"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_changed(
    below: dict[str, Any], message: str
) -> None:
    policy = rates()
    before = policy.describe()
    both = {"retry": {"cap": 4.0}, **below}
    if "retry" in below:
        both["retry"] = {"retry_after_cap": 7.0, **below["retry"]}
    assert message in refused({"rates": {"attempt_timeout": 1.0, **both}})
    assert policy.describe() == before
    assert kept_settings() == {}


def test_a_wrong_policy_keeps_the_right_one_before_it_from_being_changed() -> None:
    first, second = rates(), rates("other")
    refused({"rates": {"timeout": 1}, "other": {"timeout": 0}})
    assert (first.timeout, second.timeout) == (5.0, 5.0)


def test_two_policies_that_share_a_part_cannot_ask_for_different_values() -> None:
    shared = Bulkhead(20)
    kept = [rates("a", limit=shared), rates("b", limit=shared)]
    said = refused({"a": {"limit.queue": 1}, "b": {"limit.queue": 2}})
    assert said == (
        "configure: policies.b.limit.queue is 2; policies.a.limit.queue is 1, and both share the"
        " part"
    )
    configure({"a": {"limit.queue": 3}, "b": {"limit.queue": 3}})
    assert shared.queue == 3
    assert len(kept) == 2


def test_a_part_that_fails_to_take_what_it_has_checked_is_the_end_of_all_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = rates()

    def broken(self: Bulkhead, changes: dict[str, Any]) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(Bulkhead, "apply", broken)
    with pytest.raises(RuntimeError):
        configure({"rates": {"timeout": 1.0, "retry.attempts": 9, "limit.queue": 1}})
    assert (policy.timeout, policy.parts["retry"].attempts) == (5.0, 3)


def test_other_things_than_mappings_and_paths_are_refused() -> None:
    assert refused(3) == "configure: settings is a int; a mapping or a path would be right"


# --- later -------------------------------------------------------------------------------------


def test_settings_are_kept_for_a_policy_that_is_made_later() -> None:
    configure({"rates": {"timeout": 1.0}})
    configure({"rates": {"retry.attempts": 7}})
    policy = rates()
    assert (policy.timeout, policy.parts["retry"].attempts) == (1.0, 7)
    assert origin_of("rates", ("timeout",)) == "configure"
    assert origin_of("rates", ("attempt_timeout",)) is None
    assert origin_of("other", ("timeout",)) is None


def test_a_policy_whose_kept_settings_do_not_fit_is_not_made() -> None:
    configure({"rates": {"hedge.after": 1.0}})
    with pytest.raises(ConfigError, match=r"policies.rates.hedge.after: policy 'rates' has no"):
        rates()


def test_what_only_counts_at_the_beginning_may_stand_there_if_it_is_so_already() -> None:
    configure({"rates": {"breaker.counts": "Exception", "limit.kind": "bulkhead"}})
    rates()


# --- files and variables -----------------------------------------------------------------------

TOML = """
[serve]
nodes = 3
[policies.rates]
timeout = 4.0
retry.attempts = 2
"""


def test_the_files_of_the_working_directory_are_read_and_variables_win(folder: Path) -> None:
    policy = rates()
    (folder / "outlast.toml").write_text(TOML)
    (folder / "pyproject.toml").write_text(
        "[tool.outlast.policies.rates]\ntimeout = 3\nretry.base = 0.2\nretry.attempts = 8\n"
    )
    configure(environ={"OUTLAST_POLICIES_RATES_RETRY_ATTEMPTS": "6", "HOME": "/"})
    retry = policy.parts["retry"]
    assert (policy.timeout, retry.base, retry.attempts) == (4.0, 0.2, 6)
    assert origin_of("rates", ("timeout",)) == "outlast.toml"
    assert origin_of("rates", ("retry", "base")) == "pyproject.toml"
    attempts = ("retry", "attempts")
    assert origin_of("rates", attempts) == "OUTLAST_POLICIES_RATES_RETRY_ATTEMPTS"


def test_without_files_there_is_nothing_to_change() -> None:
    assert configure(environ={}) == ()


def test_variables_do_not_win_over_what_the_program_passes() -> None:
    policy = rates()
    configure(environ={"OUTLAST_POLICIES_RATES_TIMEOUT": "1"})
    assert policy.timeout == 1.0
    configure({"rates": {"timeout": 2}})
    assert policy.timeout == 2.0


def test_a_variable_is_kept_for_a_policy_that_is_made_later() -> None:
    configure(environ={"OUTLAST_POLICIES_RATES_TIMEOUT": "none"})
    assert rates().timeout is None
    configure(environ={"OUTLAST_POLICIES_NEXT_RETRY_ATEMPTS": "1"})
    with pytest.raises(ConfigError, match="did you mean RETRY_ATTEMPTS"):
        rates("next")


def test_a_wrong_variable_is_named(folder: Path) -> None:
    policy = rates()
    said = refused(None, environ={"OUTLAST_POLICIES_RATES_RETRY_ATTEMPTS": "many"})
    assert said == (
        "OUTLAST_POLICIES_RATES_RETRY_ATTEMPTS: policies.rates.retry.attempts is 'many';"
        " a whole number or none would be right"
    )
    assert policy.parts["retry"].attempts == 3


def test_the_environment_of_the_process_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = rates()
    monkeypatch.setenv("OUTLAST_POLICIES_RATES_TIMEOUT", "1.25")
    configure()
    assert policy.timeout == 1.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[policies\n", "x.toml: "),
        (b"\xff", "x.toml: "),
        (b"[policies.rates]\ntimeot = 1\n", "x.toml: policies.rates.timeot: no setting"),
        (b"#" * ((1 << 20) + 1), "x.toml: more than 1048576 bytes of settings"),
    ],
)
def test_a_file_that_is_no_good_is_named(folder: Path, text: bytes, message: str) -> None:
    (folder / "x.toml").write_bytes(text)
    assert refused("x.toml", environ={}).startswith(message)


def test_a_file_that_is_not_there_is_named_and_one_without_policies_says_nothing(
    folder: Path,
) -> None:
    assert refused("none.toml") == "none.toml: No such file or directory"
    (folder / "pyproject.toml").write_text("tool = 3\n")
    (folder / "outlast.toml").write_text("[serve]\nnodes = 3\n")
    assert read_file("pyproject.toml") == read_file(folder / "outlast.toml") == []


# --- making ------------------------------------------------------------------------------------


def test_a_whole_policy_is_made_from_a_table() -> None:
    policy = policy_from_settings(
        "rates",
        {
            "timeout": 3,
            "retry": {"on": "httpx.TransportError", "attempts": "none", "budget": {"ratio": 0.2}},
            "breaker": {},
            "limit": {"kind": "bulkhead", "max_concurrent": 3},
        },
        origin="outlast.toml",
    )
    assert policy.timeout == 3.0
    assert policy.parts["retry"].attempts is None
    assert policy.parts["retry"].budget.ratio == 0.2
    assert policy.parts["breaker"].state == "CLOSED"
    assert policy.parts["limit"].max_concurrent == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"retry": {}},
            "configure: policies.bad.retry.on is missing; Retry has no default for it",
        ),
        (
            {"limit": {"kind": "adaptve"}},
            "policies.bad.limit.kind is 'adaptve'; did you mean adap",
        ),
        ({"breaker": {"kind": "x"}}, "policies.bad.breaker.kind is 'x'; there is only the usual"),
        ({"limit": {"max_concurrent": 0}}, "policies.bad.limit.max_concurrent is 0; a whole"),
        ({"limit": {"max_concurent": 1}}, "no setting 'max_concurent'; did you mean max_concurr"),
        ({"timeout": -1}, "policies.bad.timeout is -1.0; seconds above 0"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_its_full_key(
    table: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        policy_from_settings("bad", table)
    assert message in str(caught.value)


def test_a_module_that_raises_when_it_is_imported_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "raising_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ConfigError, match="importing 'raising_module' raised ZeroDivisionError"):
        policy_from_settings("bad", {"retry": {"on": "raising_module.Error"}})


def test_names_are_not_imported_before_a_policy_needs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "lazy_errors", raising=False)
    configure({"rates": {"retry.on": "lazy_errors.Broken"}})
    module = types.ModuleType("lazy_errors")
    module.__dict__["Broken"] = type("Broken", (Exception,), {})
    monkeypatch.setitem(sys.modules, "lazy_errors", module)
    assert rates().parts["retry"].on.__name__ == "Broken"


# --- stores --------------------------------------------------------------------------------------


def test_a_store_is_named_by_its_url_and_parts_with_one_url_share_it() -> None:
    kept = "sqlite:fleet.db"
    policy = policy_from_settings(
        "fleet",
        {"breaker": {"store": kept}, "rate": {"rate": 5, "store": kept, "max_wait": 1.0}},
    )
    breaker, rate = policy.parts["breaker"], policy.parts["rate"]
    assert isinstance(breaker.store, SqliteStore)
    assert rate.store is breaker.store
    assert not Path("fleet.db").exists() or rate.try_acquire()
    shared_of(breaker.store).close()


def test_a_store_may_have_settings_of_its_own_and_a_budget_a_store() -> None:
    policy = policy_from_settings(
        "fleet",
        {
            "breaker": {"store": {"url": "memory:", "quorum": 1.0, "node": "a"}},
            "retry": {"on": "OSError", "budget": {"ratio": 0.2, "store": "memory:"}},
            "rate": {"rate": 5, "store": "none"},
        },
    )
    store = policy.parts["breaker"].store
    assert (store.quorum, store.node) == (1.0, "a")
    assert isinstance(policy.parts["retry"].budget.store, MemoryStore)
    assert policy.parts["retry"].budget.store is not store
    assert policy.parts["rate"].store is None


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (
            "nowhere://me:secret@x",
            "policies.p.breaker.store: open_store: 'nowhere' names no store",
        ),
        ({"quorum": 0.5}, "policies.p.breaker.store.quorum: a store needs its url"),
        ({"url": "memory:", "size": 1}, "policies.p.breaker.store.url: no such setting"),
        ({"url": "memory:", "quorum": 3}, "quorum is 3"),
        (7, "policies.p.breaker.store: a store needs its url"),
    ],
)
def test_a_store_that_is_wrong_is_refused_by_its_key(store: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy_from_settings("p", {"breaker": {"store": store, "probes": 2}})
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_error_shows_the_url_of_a_store() -> None:
    breaker = {"store": "memory:", "slow_call": 1.0}
    with pytest.raises(ConfigError) as caught:
        policy_from_settings("p", {"breaker": breaker})
    assert "slow_rate" in str(caught.value)
    assert "memory:" not in str(caught.value)


def test_the_store_of_a_live_part_stays() -> None:
    policy = policy_from_settings("fleet", {"breaker": {"store": "memory:"}})
    before = policy.parts["breaker"].store
    assert configure({"fleet": {"breaker": {"store": "memory:", "probes": 3}}})
    assert policy.parts["breaker"].store is before
    said = refused({"fleet": {"breaker": {"store": "sqlite:secret.db"}}})
    assert "cannot change while the part is used" in said
    assert "secret" not in said


def test_an_adaptive_rate_is_a_kind_of_rate() -> None:
    policy = policy_from_settings("fast", {"rate": {"kind": "adaptive", "rate": 50, "cut": 0.7}})
    assert isinstance(policy.parts["rate"], AdaptiveRate)
    configure({"fast": {"rate": {"kind": "adaptive", "floor": 5.0}}})
    assert policy.parts["rate"].floor == 5.0
    said = refused({"fast": {"rate": {"kind": "window"}}})
    assert "it is a AdaptiveRate" in said
