"""This node's own name: objecting to accusations, and who else bears it.

Only the member itself raises its incarnation, so an objection is a higher one. A process that
starts again has forgotten its incarnation; it learns it from the first exchange and goes above.
Two live processes of one name are a mistake of whoever runs them: the one that others have
acknowledged keeps it, and both say so.
"""

from typing import Final

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.context import Context
from outlast.detect.membership_events import NameConflict

JUMP_MAX: Final = 1 << 20
"""How far an incarnation may run ahead at once; an honest one grows by a few a minute."""
_LEARNT_MAX: Final = wire.INCARNATION_MAX // 2
"""How high an incarnation is taken over in a join: there is room above it for any life."""
_CONFLICT_NS: Final = 10_000_000_000


class Identity:
    """What others say about this node's name, and what it answers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.accepted = False
        """Whether others have acknowledged this process as the bearer of its name."""
        self.reborn = False
        """Whether an earlier process of this name was heard of, so that a join is due."""
        self._conflict_ns = -_CONFLICT_NS

    def claimed(self, incarnation: int, source: str) -> None:
        """Somebody says that this node is suspected, dead or gone: object."""
        context = self._context
        if incarnation < context.incarnation or context.leaving:
            return
        if self.jumps(context.incarnation, incarnation, source):
            return
        context.claimed = True
        context.view.adjust(1)
        self._object(incarnation)

    def on_namesake(
        self, news: wire.AliveNews, gone: bool = False, exchanged: bool = False
    ) -> None:
        """There is somebody of this name: this process, an earlier one, or another one.

        Args:
            news: What is said of it.
            gone: Others hold it for dead, or it has left.
            exchanged: Said in a full exchange. While it joins, this process then takes over
                however much an earlier one had counted.
        """
        context = self._context
        if news.session == context.session or context.leaving:
            return
        if news.address != context.address:
            if not gone:
                self.tell_conflict(news.name, news.address, context.address)
            if self.accepted:
                return
        if news.incarnation < context.incarnation:
            return
        learns = exchanged and not self.accepted and news.incarnation <= _LEARNT_MAX
        if learns or not self.jumps(context.incarnation, news.incarnation, news.address):
            self.reborn = True
            self._object(news.incarnation)

    def tell_conflict(self, name: str, address: str, owner: str) -> None:
        """Tell the user now and then that two processes bear one name."""
        context = self._context
        if context.now_ns - self._conflict_ns >= _CONFLICT_NS:
            self._conflict_ns = context.now_ns
            context.emit(NameConflict(node=context.name, name=name, address=address, owner=owner))

    def jumps(self, known: int, told: int, source: str) -> bool:
        """Return whether an incarnation is further ahead than any honest one."""
        if told - known > JUMP_MAX:
            self._context.drop("incarnation jumps", source)
            return True
        return False

    def _object(self, above: int) -> None:
        context = self._context
        context.incarnation = above + 1
        context.tell(context.name, context.me_piece())
