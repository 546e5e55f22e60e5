"""A node whose disk forgets: ``python -m outlast.testing.broken.node node …``.

It takes the commands and options of ``outlast``, and keeps everything in memory whatever is
asked for: no fsync moves anything to the disk, so a kill loses all of it. A test that claims to
notice lost acknowledgements must fail with it.
"""

import runpy

from outlast.cluster import process
from outlast.host import HostStorage, LossyStorage
from outlast.kernel import Storage


def forgetful_storage(name: str) -> Storage:
    """Return a storage that acknowledges every fsync and carries out none."""
    return LossyStorage(HostStorage(), sync_is_noop=True)


def main() -> None:
    """Run the command line with that storage."""
    process.choose_storage = forgetful_storage
    runpy.run_module("outlast", run_name="__main__")


if __name__ == "__main__":
    main()
