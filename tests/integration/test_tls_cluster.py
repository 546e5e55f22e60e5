"""A real cluster under TLS and tokens, whose nodes are dialled through forwarders.

Certificates are made for the test; a node's certificate is named by its id. What each token and
certificate may do, and what they may not, is tried from outside.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

import outlast
from outlast.cluster.layout import free_ports
from outlast.kernel import ConfigError, HandshakeError, UnavailableError
from outlast.state.ready.bank import Bank
from tests.support.nodes import Nodes, complaint, until
from tests.support.nodes import outlast as run

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

PEER, CLIENT, ADMIN = ("peer-" + "p" * 20, "client-" + "c" * 20, "admin-" + "a" * 20)
TOKENS = f"nodes peer {PEER}\napps client {CLIENT}\nops admin {ADMIN}\n"


class Forwarder:
    """Passes TCP bytes from a port of its own to another, in a thread."""

    def __init__(self, to: str) -> None:
        self.to = to
        self.count = 0
        self.port = free_ports(1)[0]
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> "Forwarder":
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self.port)
        )
        self._ready.set()
        self._loop.run_forever()
        server.close()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    async def _serve(self, here: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.count += 1
        host, port = self.to.rsplit(":", 1)
        try:
            with contextlib.suppress(OSError):
                there, out = await asyncio.open_connection(host, int(port))
                await asyncio.gather(_pour(here, out), _pour(there, back), return_exceptions=True)
        finally:
            back.close()


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
    finally:
        target.close()


class Files:
    """An authority and the files that nodes and clients are given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        self.tokens = str(folder / "tokens.txt")
        Path(self.tokens).write_text(TOKENS)

    def certificate(self, name: str) -> tuple[str, str]:
        made = self.authority.issue_cert(name, common_name=name)
        certificate, key = str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(certificate)
        made.private_key_pem.write_to_path(key)
        return certificate, key

    def options(self, name: str) -> list[str]:
        certificate, key = self.certificate(name)
        return [
            "--tls-cert", certificate, "--tls-key", key, "--tls-ca", self.ca,
            "--tokens", self.tokens,
        ]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def forwarders() -> Iterator[list[Forwarder]]:
    made: list[Forwarder] = []
    yield made
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory, files: Files, forwarders: list[Forwarder]
) -> Iterator[Nodes]:
    """Every node advertises a forwarder; n1 reaches n2 by a second one, given as a route."""
    made = Nodes(tmp_path_factory.mktemp("tls"))
    for name in made.names:
        forwarders.append(Forwarder(made.listen[name]).start())
        made.advertise[name] = forwarders[-1].address
    forwarders.append(Forwarder(made.listen["n2"]).start())
    made.options = {name: files.options(name) for name in made.names}
    made.options["n1"] += ["--route", f"n2={forwarders[3].address}"]
    try:
        made.init().start().serving()
        yield made
    finally:
        made.close()


async def deposit(at: str, account: str, *, timeout: float = 60, **access: object) -> int:
    async with outlast.connect(Bank, at, timeout=timeout, **access) as bank:  # type: ignore[call-overload]
        result: int = await bank.call(Bank.deposit, account, 1)
        return result


def refused(at: str, why: str, **access: object) -> None:
    """Check that a client is told why it does not get in, once a node has answered it."""
    said = ""
    for seconds in (1, 5, 25):
        with pytest.raises((HandshakeError, UnavailableError)) as caught:
            asyncio.run(deposit(at, "refused", timeout=seconds, **access))
        said = str(caught.value)
        if re.search(why, said):
            return
    raise AssertionError(said)


def test_a_client_token_is_enough_for_commands(
    nodes: Nodes, files: Files, forwarders: list[Forwarder]
) -> None:
    assert asyncio.run(deposit(nodes.at, "token", token=CLIENT, tls_ca=files.ca)) == 1
    one = nodes.advertise["n3"]  # the leader is found by what the nodes advertise
    assert asyncio.run(deposit(one, "token", token=CLIENT, tls_ca=files.ca)) == 2
    assert all(one.count > 0 for one in forwarders[:3])


def test_a_route_overrides_what_is_advertised(
    nodes: Nodes, files: Files, forwarders: list[Forwarder]
) -> None:
    until(lambda: forwarders[3].count >= 2, "n1 dials n2 by its route, on both channels")
    own = Forwarder(nodes.listen["n1"]).start()
    others = {name: Forwarder(nodes.listen[name]).start() for name in ("n2", "n3")}
    forwarders += [own, *others.values()]
    routed = [own, *others.values()]
    routes = {"n1": own.address, **{name: one.address for name, one in others.items()}}
    redirected = 0
    for number, first in enumerate(routed, 1):
        before = sum(one.count for one in routed if one is not first)
        done = deposit(first.address, "routed", token=CLIENT, tls_ca=files.ca, routes=routes)
        assert asyncio.run(done) == number
        redirected += sum(one.count for one in routed if one is not first) > before
    # Whoever was asked first and did not lead, the leader was reached by its route: twice, if it
    # stays the same.
    assert redirected


def test_who_has_no_token_and_no_certificate_is_refused(nodes: Nodes, files: Files) -> None:
    for access in ({"tls_ca": files.ca}, {"tls_ca": files.ca, "token": "x" * 24}):
        refused(nodes.at, "token", **access)


def test_an_authority_that_is_not_known_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    other = Files(tmp_path)
    refused(nodes.at, r"(?i)certificate", token=CLIENT, tls_ca=other.ca)
    with pytest.raises(UnavailableError):
        asyncio.run(deposit(nodes.at, "plain", timeout=1, token=CLIENT))


def test_only_an_admin_token_may_administer(nodes: Nodes, files: Files) -> None:
    line = ["transfer-leader", "n2", "--at", nodes.at, "--tls-ca", files.ca]
    code, _, err = run(*line, OUTLAST_TOKEN=CLIENT)
    assert code == 2
    assert "scope" in complaint(err)
    status = ["status", "--at", nodes.at, "--tls-ca", files.ca]
    said: list[str] = []

    def moved() -> bool:
        """Whether it leads; on a busy machine another node may take over at once."""
        code, out, err = run(*line, OUTLAST_TOKEN=ADMIN)
        said.append(out + err)
        if (code, out) != (0, "n2 leads\n"):
            return False
        code, out, err = run(*status, OUTLAST_TOKEN=CLIENT)
        said.append(out + err)
        return code == 0 and "led by n2" in out

    assert until(moved, "n2 leads"), said
    assert CLIENT not in "".join(said)
    assert PEER not in "".join(nodes.log(name) for name in nodes.names)


def test_a_certificate_with_another_name_is_no_peer(nodes: Nodes, files: Files) -> None:
    """n3 comes back with a certificate for n9: the others neither dial nor accept it."""
    nodes.kill("n3")
    kept = nodes.options["n3"]
    nodes.options["n3"] = files.options("n9")
    nodes.start("n3")
    leader = nodes.leader(other_than="n3") if nodes.http == {} else "n1"

    def problem() -> bool:
        code, out, _ = run(
            "status", "--at", nodes.advertise[leader], "--tls-ca", files.ca, "--json",
            OUTLAST_TOKEN=CLIENT,
        )  # fmt: skip
        return code == 0 and "n9" in out

    until(problem, "the others name the certificate's name")
    assert asyncio.run(deposit(nodes.at, "without n3", token=CLIENT, tls_ca=files.ca)) == 1
    nodes.kill("n3")
    nodes.options["n3"] = kept
    nodes.start("n3").serving("n3")


def test_the_gateway_is_https_and_needs_the_token(nodes: Nodes, files: Files) -> None:
    import ssl

    context = ssl.create_default_context(cafile=files.ca)
    context.check_hostname = False  # the name is the node's id
    url = f"https://{nodes.http['n1']}"
    with httpx.Client(verify=context, timeout=60) as http:
        assert http.get(f"{url}/livez").status_code == 200
        assert http.get(f"{url}/metrics").status_code == 200
        body = {"account": "https", "amount": 1}
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": CLIENT}):
            answer = http.post(f"{url}/v1/command/deposit", json=body, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["happened"] == "no"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert http.get(f"{url}/status", headers=headers).status_code == 401
        headers = {"authorization": f"Bearer {CLIENT}"}
        answer = http.post(f"{url}/v1/command/deposit", json=body, headers=headers)
        assert answer.json()["result"] == 1
        assert http.get(f"{url}/status", headers=headers).json()["node"] == "n1"


def test_wrong_settings_of_a_client_are_named(files: Files) -> None:
    for access, named in (
        ({"tls_cert": files.ca}, "ca is missing"),
        ({"tls_ca": files.ca, "tls_cert": files.ca}, "key is not; give both"),
        ({"tls_ca": "nowhere.pem"}, "nowhere.pem is not a file"),
        ({"routes": {"n1": "here"}}, "has no port"),
    ):
        with pytest.raises(ConfigError, match=named):
            outlast.connect(Bank, "127.0.0.1:7400", **access)  # type: ignore[call-overload]
