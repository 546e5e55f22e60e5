"""Connections that go around the proxy, so that its faults prove nothing (Linux)."""

import os
from collections.abc import Collection, Iterator, Mapping

from outlast.inject.identity import pids as all_pids
from outlast.inject.identity import process_trees
from outlast.inject.sockets import Established, established, listening


def find_listeners(roots: Mapping[str, int]) -> dict[int, str]:
    """Return every TCP port on which a node listens, and the node; blocking, reads all of /proc.

    Args:
        roots: First process of each node; its descendants are looked at too.
    """
    trees = process_trees(roots.values())
    ports = listening()
    found: dict[int, str] = {}
    for node, root in roots.items():
        for process in trees[root]:
            for inode in _inodes(process.pid):
                if inode in ports:
                    found.setdefault(ports[inode], node)
    return found


def bypasses(
    listeners: Mapping[int, str],
    pids: Mapping[str, Collection[int]],
    proxy_pid: int,
    dialled: Collection[int] | None = None,
    *,
    others: Mapping[int, str] | None = None,
) -> list[str]:
    """Name every connection to a node's real port that does not come from the proxy.

    A node may be connected to itself, as its gateway is. Cheap while all is well: one question
    to the kernel. Sees the sockets of this network namespace.

    Args:
        listeners: Real port of each listener, and the node that has it.
        pids: Processes of each node, its descendants included.
        proxy_pid: The process that runs the proxy.
        dialled: Local ports of the connections that the proxy dialled
            (:meth:`outlast.inject.Proxy.dialled_ports`): with them, a client in the proxy's own
            process is found too. ``None``: all of that process counts as the proxy.
        others: Ports that nodes have besides (:func:`find_listeners`), which the proxy does not
            lead to. Connections to them count if they are another node's or the drill's own:
            whoever else looks at a node there does it no good and no harm.

    Returns:
        One sentence each, sorted; empty: nothing goes around the proxy.
    """
    known = {**(others or {}), **listeners}
    suspects = _suspects(known, proxy_pid, dialled)
    if not suspects:
        return []
    # A socket that was opened or closed between the two looks has no owner then: look again.
    again = _suspects(known, proxy_pid, dialled)
    inodes = suspects.keys() & again.keys()
    if not inodes:
        return []
    names = {pid: node for node, group in pids.items() for pid in group}
    names.setdefault(proxy_pid, "the drill itself")
    owners = _owners(inodes, [*names, *all_pids()])
    orphans = inodes - owners.keys()
    # Closed while its owner was looked for: whose it was is not known, maybe the node's own.
    orphans = orphans and orphans - _suspects(known, proxy_pid, dialled).keys()
    found = set()
    for inode in inodes - orphans:
        socket = again[inode]
        target = known[socket.remote_port]
        holders = owners.get(inode, [])
        if any(names.get(pid) == target for pid in holders):
            continue
        if socket.remote_port not in listeners and not names.keys() & holders:
            continue
        who = _who(holders, names)
        found.add(f"{who} is connected to {target} {socket.remote}:{socket.remote_port} directly")
    return sorted(found)


def _who(holders: list[int], names: Mapping[int, str]) -> str:
    if not holders:
        return "a process that cannot be looked at"
    pid = next((pid for pid in holders if pid in names), holders[0])
    return f"{names[pid]} (pid {pid})" if pid in names else f"{_command(pid)} (pid {pid})"


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process"


def _suspects(
    listeners: Mapping[int, str], proxy_pid: int, dialled: Collection[int] | None
) -> dict[int, Established]:
    """Return connections to the listeners that are not the proxy's, by inode."""
    towards = {
        socket.inode: socket
        for socket in established(listeners)
        if socket.within and (dialled is None or socket.local_port not in dialled)
    }
    if towards and dialled is None:
        for inode in _inodes(proxy_pid):
            towards.pop(inode, None)
    return towards


def _inodes(pid: int) -> Iterator[int]:
    """Yield the inodes of a process's sockets; none if it may not be looked at."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            link = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if link.startswith("socket:["):
            yield int(link[8:-1])


def _owners(inodes: Collection[int], candidates: Collection[int]) -> dict[int, list[int]]:
    """Return who holds each inode, looking at the candidates in order and once each."""
    owners: dict[int, list[int]] = {}
    for pid in dict.fromkeys(candidates):
        for inode in _inodes(pid):
            if inode in inodes and pid not in owners.setdefault(inode, []):
                owners[inode].append(pid)
    return owners
