"""A broken node: ``python -m outlast.testing.broken.node node …``.

It takes the commands and options of ``outlast`` and breaks one promise, chosen by the variable
``OUTLAST_BROKEN`` of its environment: a name of :data:`BROKEN`.

Without the variable its disk forgets, and everything is kept in memory whatever is asked for: no
fsync moves anything to the disk, so a kill loses all of it. A test that claims to notice lost
acknowledgements must fail with it.
"""

import os
import runpy
import sys

from outlast.kernel import ConfigError
from outlast.testing.broken.breakage import BROKEN, find_breakage

VARIABLE = "OUTLAST_BROKEN"
DEFAULT = "forgets-fsync"


def main() -> None:
    """Break this process, and run the command line in it."""
    try:
        find_breakage(os.environ.get(VARIABLE) or DEFAULT).apply(setattr)
    except ConfigError as error:
        sys.stderr.write(f"outlast: {error}\n")
        sys.exit(2)
    runpy.run_module("outlast", run_name="__main__")


if __name__ == "__main__":
    main()

__all__ = ["BROKEN", "DEFAULT", "VARIABLE", "main"]
