"""Mutual TLS: the certificate must come from the CA and name the node; made fresh per run."""

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from outlast.host import make_world
from outlast.kernel import ConfigError, HandshakeError, UnavailableError, World
from outlast.wire import (
    Connection,
    HandshakeRefused,
    Identity,
    Limits,
    Scope,
    Security,
    Token,
    WireListener,
    dial,
)

pytestmark = pytest.mark.timeout(120)

N1 = Identity(cluster="blue", node="n1", incarnation=1)
N2 = Identity(cluster="blue", node="n2", incarnation=1)
APP = Token("app", Scope.CLIENT, "app-0123456789abcdef")
PEER = Token("node", Scope.PEER, "node-0123456789abcdef")


class Files:
    """Certificates in files, as an operator has them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.foreign = trustme.CA()
        self.ca = self._write("ca.pem", self.authority.cert_pem.bytes())
        self.foreign_ca = self._write("foreign.pem", self.foreign.cert_pem.bytes())

    def _write(self, name: str, data: bytes) -> str:
        path = self.directory / name
        path.write_bytes(data)
        return str(path)

    def security(
        self, *names: str, foreign: bool = False, ca: str | None = None, **given: Any
    ) -> Security:
        extra = {key: given.pop(key) for key in ("not_after", "common_name") if key in given}
        authority = self.foreign if foreign else self.authority
        issued = authority.issue_cert(*names, **extra)
        stem = "-".join(names) + ("-foreign" if foreign else "") + ("-old" if extra else "")
        certificate = self._write(
            f"{stem}.pem", b"".join(part.bytes() for part in issued.cert_chain_pems)
        )
        key = self._write(f"{stem}.key", issued.private_key_pem.bytes())
        return Security.from_files(certificate=certificate, key=key, ca=ca or self.ca, **given)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


class Quiet:
    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()

    def opened(self, connection: Connection) -> None:
        self.connection = connection

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        self.frames.put_nowait((kind, stream, body))

    def closed(self, error: BaseException | None) -> None:
        pass


class Node:
    def __init__(self, world: World, security: Security) -> None:
        self.world = world
        self.handlers: list[Quiet] = []
        self.refusals: list[str] = []
        world.events.subscribe(self._hear)  # type: ignore[attr-defined]
        self.listener = WireListener(world, N1, security, Limits(handshake_timeout=20.0))
        self.listener.register("raft", self._accept, Scope.PEER)
        self.listener.register("app", self._accept, Scope.CLIENT)

    def _hear(self, event: object) -> None:
        if isinstance(event, HandshakeRefused):
            self.refusals.append(event.reason)

    def _accept(self, connection: Connection) -> Quiet:
        self.handlers.append(Quiet())
        return self.handlers[-1]

    async def start(self) -> "Node":
        self.port = await self.listener.start("127.0.0.1", 0)
        return self

    async def call(self, security: Security, channel: str = "raft", **given: Any) -> None:
        """Dial and send one frame; returns once it has arrived."""
        identity = given.pop("identity", N2)
        connection = await dial(
            self.world, "127.0.0.1", self.port, channel=channel, identity=identity,
            handler=Quiet(), security=security, timeout=30, **given,
        )  # fmt: skip
        connection.send(1, 2, b"over tls")
        assert await self.handlers[-1].frames.get() == (1, 2, b"over tls")
        connection.close()


def run(story: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        # A rejected TLS handshake is the caller's failure; asyncio reports it to the loop too.
        loop.set_exception_handler(lambda *_: None)
        async with asyncio.timeout(60):
            await story(make_world(seed=1))

    asyncio.run(main())


def test_peers_with_the_right_names_talk(files: Files) -> None:
    async def story(world: World) -> None:
        node = await Node(world, files.security("n1")).start()
        await node.call(files.security("n2"), expect_node="n1", expect_cluster="blue")
        assert node.handlers[0].connection.peer == N2
        assert node.handlers[0].connection.ssl_object.version() == "TLSv1.3"
        assert node.refusals == []
        await node.listener.close()

    run(story)


def test_a_common_name_counts_too(files: Files) -> None:
    async def story(world: World) -> None:
        node = await Node(world, files.security("n1")).start()
        await node.call(files.security("other", common_name="n2"))
        await node.listener.close()

    run(story)


def test_a_peer_whose_certificate_names_another_is_refused(files: Files) -> None:
    async def story(world: World) -> None:
        node = await Node(world, files.security("n1")).start()
        says = "a peer's certificate must name its node id 'n2'; shown: n3"
        with pytest.raises(HandshakeError, match=says):
            await node.call(files.security("n3"))
        assert says in node.refusals[0]
        assert node.handlers == []
        await node.listener.close()

    run(story)


def test_a_listener_whose_certificate_names_another_gets_no_hello(files: Files) -> None:
    async def story(world: World) -> None:
        node = await Node(world, files.security("n3")).start()
        with pytest.raises(HandshakeError, match="certificate: it names n3, expected node 'n1'"):
            await node.call(files.security("n2"), expect_node="n1")
        with pytest.raises(HandshakeError, match="certificate: it names n3, the node says 'n1'"):
            await node.call(files.security("n2"))
        await node.listener.close()

    run(story)


def _expired(files: Files) -> Security:
    long_ago = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    return files.security("n2", not_after=long_ago)


@pytest.mark.parametrize("who", ["none", "foreign", "expired"])
def test_a_caller_without_a_good_certificate_does_not_get_in(files: Files, who: str) -> None:
    async def story(world: World) -> None:
        node = await Node(world, files.security("n1")).start()
        security = {
            "none": lambda: Security.from_files(ca=files.ca),
            "foreign": lambda: files.security("n2", foreign=True),
            "expired": lambda: _expired(files),
        }[who]()
        with pytest.raises((HandshakeError, UnavailableError), match="n1 at 127"):
            await node.call(security, expect_node="n1")
        assert node.handlers == []
        await node.call(files.security("n2"), expect_node="n1")
        await node.listener.close()

    run(story)


@pytest.mark.parametrize("who", ["foreign", "expired"])
def test_a_listener_without_a_good_certificate_is_not_trusted(files: Files, who: str) -> None:
    async def story(world: World) -> None:
        bad = files.security("n2", foreign=True) if who == "foreign" else _expired(files)
        node = await Node(world, bad).start()
        with pytest.raises(HandshakeError, match="certificate"):
            await node.call(files.security("n3"))
        assert node.handlers == []
        await node.listener.close()

    run(story)


def test_plain_callers_of_a_tls_listener_and_the_other_way_round(files: Files) -> None:
    async def story(world: World) -> None:
        node = await Node(world, files.security("n1")).start()
        with pytest.raises((HandshakeError, UnavailableError)):
            await node.call(Security())
        await node.listener.close()
        plain = await Node(world, Security()).start()
        with pytest.raises((HandshakeError, UnavailableError)):
            await plain.call(files.security("n2"))
        assert "looks like TLS" in plain.refusals[0]
        assert node.handlers == plain.handlers == []
        await plain.listener.close()

    run(story)


def test_with_tokens_clients_need_no_certificate_and_peers_need_both(files: Files) -> None:
    async def story(world: World) -> None:
        node = await Node(world, files.security("n1", tokens=(APP, PEER))).start()
        bare = {"ca": files.ca}
        await node.call(Security.from_files(**bare, token=APP.secret), "app")
        await node.call(files.security("n2", token=PEER.secret), "raft")
        for security, channel, says in (
            (Security.from_files(**bare), "app", "none shown"),
            (Security.from_files(**bare, token=PEER.secret), "raft", "no certificate"),
            (files.security("n2", token=APP.secret), "raft", "the scope shown is client"),
            (files.security("n3", token=PEER.secret), "raft", "must name its node id 'n2'"),
        ):
            with pytest.raises(HandshakeError, match=says):
                await node.call(security, channel)
        assert len(node.handlers) == 2
        await node.listener.close()

    run(story)


def test_tls_lifts_the_loopback_rule(files: Files) -> None:
    files.security("n1").check_bind("0.0.0.0")
    files.security("n1").check_dial("n7.example")


def test_key_and_certificate_that_do_not_belong_together(files: Files) -> None:
    for name in ("a1", "a2"):
        files.security(name)  # writes the files
    with pytest.raises(ConfigError, match=r"TLS: .*a2"):
        Security.from_files(
            certificate=str(files.directory / "a1.pem"),
            key=str(files.directory / "a2.key"),
            ca=files.ca,
        )
