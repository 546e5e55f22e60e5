"""``outlast`` with smaller agreed limits, to see in seconds what else takes hours.

``OUTLAST_TEST_LIMITS`` is a JSON object of fields of :class:`outlast.state.core.limits.Limits`;
``OUTLAST_TEST_REPLICA`` one of :class:`outlast.state.ReplicaSettings`.
"""

import json
import os
import sys
from dataclasses import replace
from typing import Any

from outlast.cli import main
from outlast.cluster import node
from outlast.state.core.limits import Limits

_made = node.Node.__init__


def _limited(self: Any, world: Any, machine: Any, settings: Any, **more_settings: Any) -> None:
    limits = Limits(**json.loads(os.environ.get("OUTLAST_TEST_LIMITS", "{}")))
    more = json.loads(os.environ.get("OUTLAST_TEST_REPLICA", "{}"))
    replica = replace(settings.replica, limits=limits, **more)
    _made(self, world, machine, replace(settings, replica=replica), **more_settings)


if __name__ == "__main__":
    node.Node.__init__ = _limited  # type: ignore[method-assign]
    sys.exit(main())
