"""``Instance``: where one of several equal services is, and what is known of it beforehand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from outlast.kernel import ConfigError
from outlast.protect.checks import check_number

_ADDRESS_MAX = 2000


@dataclass(frozen=True, slots=True)
class Instance:
    """One of several equal services.

    Args:
        address: What the function that is called needs to reach it: a URL, ``host:port``, a DSN.
            It is the instance's identity in the pool.
        weight: Share of the calls that it gets, beside those of others. 0.001 to 1000.
        zone: Where it runs, such as ``"eu-1a"``; compared with the ``zone`` of the pool.
        host: Name under which it knows itself, where the address is a number: for the ``Host``
            header and the name in its certificate.

    Raises:
        ConfigError: A value is out of range.
    """

    address: str
    weight: float = 1.0
    zone: str = ""
    host: str = ""

    def __post_init__(self) -> None:
        address: object = self.address
        if not isinstance(address, str) or not 0 < len(address) <= _ADDRESS_MAX:
            raise ConfigError(
                f"Instance: address is {address!r}; text of 1 to {_ADDRESS_MAX} characters, such "
                "as http://a:8080, would be right"
            )
        check_number("Instance", "weight", self.weight, 0.001, 1000.0, what="a number")

    def __str__(self) -> str:
        """Return the address."""
        return self.address


@dataclass(frozen=True, slots=True)
class Found:
    """What discovery has found.

    Attributes:
        instances: All that are there.
        avoid: Addresses of those that are suspected: they get calls only when others are few.
    """

    instances: tuple[Instance, ...]
    avoid: frozenset[str] = frozenset()


def instances_of(given: Iterable[Any], most: int) -> tuple[Instance, ...]:
    """Return instances, each address once, in the order given.

    Args:
        given: Addresses or instances.
        most: More than so many are refused, so that no answer of a discovery fills the memory.

    Raises:
        ConfigError: Definite. There are too many, or one of them is neither.
    """
    found: dict[str, Instance] = {}
    for one in given:
        made = one if isinstance(one, Instance) else Instance(one)
        found.setdefault(made.address, made)
        if len(found) > most:
            raise ConfigError(f"Pool: more than {most} instances; raise instances_max=")
    return tuple(found.values())


def found_of(given: Any, most: int) -> Found:
    """Return what a discovery has answered, as a :class:`Found`.

    Raises:
        ConfigError: Definite. It is something else than addresses and instances.
    """
    if isinstance(given, Found):
        return Found(instances_of(given.instances, most), given.avoid)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigError(f"Pool: discovery gave {given!r}; a list of addresses would be right")
    return Found(instances_of(given, most))


def show(instances: Sequence[Instance]) -> tuple[str, ...]:
    """Return the addresses."""
    return tuple(instance.address for instance in instances)
