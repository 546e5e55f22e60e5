"""outlast keeps a Python service working while its parts fail, and proves that it does.

Names are imported on first use (PEP 562), so that ``import outlast`` costs nothing and needs
nothing but the standard library. A name whose extra is not installed raises
:class:`ConfigError` with the command that installs it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast import blocking as blocking
    from outlast import check as check
    from outlast import drill as drill
    from outlast import observe as observe
    from outlast import sim as sim
    from outlast import testing as testing
    from outlast.cluster.connect import connect as connect
    from outlast.detect import Drain as Drain
    from outlast.detect import Health as Health
    from outlast.detect import HeartbeatMonitor as HeartbeatMonitor
    from outlast.detect import Members as Members
    from outlast.detect import Supervisor as Supervisor
    from outlast.detect import Watchdogs as Watchdogs
    from outlast.kernel import BarredError as BarredError
    from outlast.kernel import BulkheadFullError as BulkheadFullError
    from outlast.kernel import CircuitOpenError as CircuitOpenError
    from outlast.kernel import CommandError as CommandError
    from outlast.kernel import CommandTypeError as CommandTypeError
    from outlast.kernel import ConfigError as ConfigError
    from outlast.kernel import ConnectionLostError as ConnectionLostError
    from outlast.kernel import CorruptionError as CorruptionError
    from outlast.kernel import DataError as DataError
    from outlast.kernel import DeadlineError as DeadlineError
    from outlast.kernel import DeadlockError as DeadlockError
    from outlast.kernel import DefiniteError as DefiniteError
    from outlast.kernel import DiskFullError as DiskFullError
    from outlast.kernel import DivergedError as DivergedError
    from outlast.kernel import ElsewhereError as ElsewhereError
    from outlast.kernel import EscapeError as EscapeError
    from outlast.kernel import FencedError as FencedError
    from outlast.kernel import HandshakeError as HandshakeError
    from outlast.kernel import IndefiniteError as IndefiniteError
    from outlast.kernel import InFlightError as InFlightError
    from outlast.kernel import InvariantError as InvariantError
    from outlast.kernel import KeyReusedError as KeyReusedError
    from outlast.kernel import LogFailedError as LogFailedError
    from outlast.kernel import LostError as LostError
    from outlast.kernel import NoEffectError as NoEffectError
    from outlast.kernel import NoMajorityError as NoMajorityError
    from outlast.kernel import OutlastError as OutlastError
    from outlast.kernel import OverloadedError as OverloadedError
    from outlast.kernel import ProtocolError as ProtocolError
    from outlast.kernel import RateLimitedError as RateLimitedError
    from outlast.kernel import RejectedError as RejectedError
    from outlast.kernel import ReplyLostError as ReplyLostError
    from outlast.kernel import SealedError as SealedError
    from outlast.kernel import SessionExpiredError as SessionExpiredError
    from outlast.kernel import TooLateError as TooLateError
    from outlast.kernel import TrimmedError as TrimmedError
    from outlast.kernel import UnavailableError as UnavailableError
    from outlast.kernel import happened as happened
    from outlast.kernel import idempotency_key as idempotency_key
    from outlast.pool import Pool as Pool
    from outlast.protect import AIMD as AIMD
    from outlast.protect import AdaptiveLimit as AdaptiveLimit
    from outlast.protect import Budget as Budget
    from outlast.protect import Bulkhead as Bulkhead
    from outlast.protect import Cache as Cache
    from outlast.protect import CircuitBreaker as CircuitBreaker
    from outlast.protect import CountWindow as CountWindow
    from outlast.protect import Fallback as Fallback
    from outlast.protect import Gradient as Gradient
    from outlast.protect import Hard as Hard
    from outlast.protect import Hedge as Hedge
    from outlast.protect import Idempotency as Idempotency
    from outlast.protect import Idempotent as Idempotent
    from outlast.protect import Inject as Inject
    from outlast.protect import Keyed as Keyed
    from outlast.protect import Policy as Policy
    from outlast.protect import RateLimit as RateLimit
    from outlast.protect import Retry as Retry
    from outlast.protect import SlidingWindow as SlidingWindow
    from outlast.protect import ThreadBulkhead as ThreadBulkhead
    from outlast.protect import TimeWindow as TimeWindow
    from outlast.protect import Vegas as Vegas
    from outlast.protect import Vote as Vote
    from outlast.protect import configure as configure
    from outlast.protect import deadline as deadline
    from outlast.protect import remaining as remaining
    from outlast.protect import retry_with_backoff as retry_with_backoff
    from outlast.state import StateMachine as StateMachine
    from outlast.state import Table as Table
    from outlast.state import command as command
    from outlast.state import open as open
    from outlast.state import query as query

    __version__: str

_NAMES = {
    "outlast.kernel": (
        "BarredError BulkheadFullError CircuitOpenError CommandError CommandTypeError"
        " ConfigError ConnectionLostError CorruptionError DataError DeadlineError"
        " DeadlockError DefiniteError DiskFullError DivergedError ElsewhereError"
        " EscapeError FencedError HandshakeError InFlightError IndefiniteError"
        " InvariantError KeyReusedError LogFailedError LostError NoEffectError"
        " NoMajorityError OutlastError OverloadedError ProtocolError RateLimitedError"
        " RejectedError ReplyLostError SealedError SessionExpiredError TooLateError"
        " TrimmedError UnavailableError happened idempotency_key"
    ),
    "outlast.state": "StateMachine Table command open query",
    "outlast.cluster.connect": "connect",
    "outlast.protect": (
        "AIMD AdaptiveLimit Bulkhead Budget Cache CircuitBreaker CountWindow Fallback"
        " Gradient Hard Hedge Idempotency Idempotent Inject Keyed Policy RateLimit Retry"
        " SlidingWindow ThreadBulkhead TimeWindow Vegas Vote configure deadline remaining"
        " retry_with_backoff"
    ),
    "outlast.detect": "Drain Health HeartbeatMonitor Members Supervisor Watchdogs",
    "outlast.pool": "Pool",
}
_MODULES = ("blocking", "check", "drill", "observe", "sim", "testing")
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

# Which extra brings a package that one of our modules asked for and did not find.
_EXTRA = {
    "msgspec": "client",
    "crc32c": "client",
    "cyclopts": "cluster",
    "rich": "cluster",
    "starlette": "cluster",
    "uvicorn": "cluster",
    "uvloop": "fast",
    "prometheus_client": "prometheus",
    "opentelemetry": "otel",
    "aiohttp": "etcd",
    "redis": "redis",
    "obstore": "backup",
    "cryptography": "tls",
    "psutil": "system",
    "jinja2": "drill",
    "edn_format": "edn",
    "grpc": "grpc",
    "h11": "health",
}

# `open` is to be had as outlast.open: a star import must not put it in the place of the builtin.
__all__ = [  # noqa: PLE0604 - the table's names; checkers read the imports above
    *sorted(_HOME.keys() - {"open"}),
    *_MODULES,
    "__version__",
]


def _load(name: str) -> Any:
    from importlib import import_module

    try:
        if name in _HOME:
            return getattr(import_module(_HOME[name]), name)
        return import_module(f"outlast.{name}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        from outlast.kernel import ConfigError

        message = f'outlast.{name} needs {package}: pip install "outlast[{_EXTRA[package]}]"'
        raise ConfigError(message) from error


# Not for type checkers, to which it would make every misspelt name look right.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name on first use.

        Raises:
            AttributeError: There is no such name.
            ConfigError: Its extra is not installed; the message holds the command.
        """
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("outlast")
        elif name in _HOME or name in _MODULES:
            value = _load(name)
        else:
            message = f"module 'outlast' has no attribute {name!r}"
            raise AttributeError(message)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the public names, whether imported yet or not."""
    return sorted({*globals(), *_HOME, *__all__})
