"""A small file is replaced as a whole, whenever the power goes."""

from pathlib import Path

import pytest

from outlast.host import HostStorage, LossyStorage
from outlast.kernel import Prng
from outlast.log.files import read_whole, write_atomically


class CutError(Exception):
    """The power went."""


@pytest.mark.parametrize("seed", range(8))
def test_after_a_power_cut_the_old_content_stands_or_the_new(tmp_path: Path, seed: int):
    storage = LossyStorage(HostStorage())
    path = f"{tmp_path}/mark"
    assert read_whole(storage, path) is None
    write_atomically(storage, path, b"old")

    def cut() -> None:
        raise CutError

    with pytest.raises(CutError):
        write_atomically(storage, path, b"longer than it was", cut)
    storage.power_cut(Prng(seed))
    assert read_whole(storage, path) == b"old"
    write_atomically(storage, path, b"new")
    storage.power_cut(Prng(seed))
    assert read_whole(storage, path) == b"new"
