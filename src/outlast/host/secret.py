"""Key material and nonces, from the system's generator."""

import os


def secret_bytes(count: int) -> bytes:
    """Return ``count`` bytes that nobody can guess.

    In a simulation they come from the seed, since it stands in the place of ``os.urandom``.
    """
    return os.urandom(count)
