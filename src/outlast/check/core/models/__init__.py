"""The models that come with outlast, by name."""

from collections.abc import Mapping

from outlast.check.core.model import Model
from outlast.check.core.models.append import Append
from outlast.check.core.models.bank import Bank
from outlast.check.core.models.counter import Counter
from outlast.check.core.models.queue import Queue
from outlast.check.core.models.register import Kv, Register
from outlast.check.core.models.set import Set

MODELS: Mapping[str, type[Model]] = {
    model.name: model for model in (Register, Kv, Append, Set, Counter, Bank, Queue)
}
"""What ``outlast check --model`` accepts."""

__all__ = ["MODELS", "Append", "Bank", "Counter", "Kv", "Queue", "Register", "Set"]
