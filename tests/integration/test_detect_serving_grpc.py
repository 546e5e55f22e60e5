"""gRPC health v1 on real servers: a group for each service, changes for those who watch."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from outlast.detect import GrpcHealth, Health, Status
from outlast.kernel import ConfigError

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
WAIT = 60
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def health() -> Health:
    health = Health()
    health.report("db", Status.OK)
    return health


@pytest.fixture
def stub(health: Health) -> Iterator[Any]:
    server = grpc.server(ThreadPoolExecutor(1))
    with GrpcHealth(health, ["shop.Cart"], every=0.02) as served:
        served.add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield health_pb2_grpc.HealthStub(channel)
        finally:
            server.stop(None).wait(WAIT)


def asked(service: str = "") -> Any:
    return health_pb2.HealthCheckRequest(service=service)


def check(stub: Any, service: str = "") -> int:
    return int(stub.Check(asked(service), timeout=WAIT).status)


def test_a_service_serves_while_its_group_passes(health: Health, stub: Any) -> None:
    services = ("", "shop.Cart", "readiness", "liveness", "startup")
    assert [check(stub, name) for name in services] == [SERVING] * 5
    health.report("db", Status.FAILED)
    assert [check(stub, name) for name in services] == [NOT_SERVING] * 3 + [SERVING] * 2


def test_a_service_that_was_not_named_is_not_found(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as error:
        check(stub, "shop.Nothing")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def test_an_answer_is_that_of_the_moment(health: Health, stub: Any) -> None:
    for status, expected in ((Status.FAILED, NOT_SERVING), (Status.OK, SERVING)) * 3:
        health.report("db", status)
        assert check(stub) == expected


def test_those_who_watch_are_told_of_changes(health: Health, stub: Any) -> None:
    watching = stub.Watch(asked("shop.Cart"), timeout=WAIT)
    assert next(watching).status == SERVING
    health.report("db", Status.FAILED)
    assert next(watching).status == NOT_SERVING
    health.report("db", Status.OK)
    assert next(watching).status == SERVING
    watching.cancel()
    assert next(stub.Watch(asked("other"), timeout=WAIT)).status == UNKNOWN


def test_many_watchers_do_not_take_the_threads_of_the_server(health: Health, stub: Any) -> None:
    watching = [stub.Watch(asked(), timeout=WAIT) for _ in range(8)]
    assert [next(one).status for one in watching] == [SERVING] * 8
    assert check(stub) == SERVING  # the server has one thread
    for one in watching:
        one.cancel()


def test_a_drain_is_for_good_and_leaves_liveness_alone(health: Health, stub: Any) -> None:
    watching = stub.Watch(asked(), timeout=WAIT)
    assert next(watching).status == SERVING
    health.drain("SIGTERM")
    assert next(watching).status == NOT_SERVING
    health.report("db", Status.OK)
    assert check(stub) == NOT_SERVING
    assert check(stub, "liveness") == SERVING
    watching.cancel()


def test_results_that_grow_old_are_noticed_by_those_who_watch(health: Health, stub: Any) -> None:
    health.report("queue", Status.OK, within=0.1)
    statuses = (one.status for one in stub.Watch(asked(), timeout=WAIT))
    assert NOT_SERVING in statuses


def test_it_is_served_by_asyncio_too(health: Health) -> None:
    async def main() -> None:
        server = grpc.aio.server()
        served = GrpcHealth(health, {"probe": "liveness"}, every=0.02).add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def check(service: str = "") -> int:
                return int((await stub.Check(asked(service), timeout=WAIT)).status)

            assert [await check(), await check("probe")] == [SERVING] * 2
            watching = stub.Watch(asked(), timeout=WAIT)
            assert (await watching.read()).status == SERVING
            health.report("db", Status.FAILED)
            assert await check() == NOT_SERVING
            assert (await watching.read()).status == NOT_SERVING
            health.report("db", Status.OK)
            assert (await watching.read()).status == SERVING
            health.drain("SIGTERM")
            assert (await watching.read()).status == NOT_SERVING
            assert await check("probe") == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await check("nothing")
            assert error.value.code() is grpc.StatusCode.NOT_FOUND
            watching.cancel()
        served.close()
        await server.stop(None)

    asyncio.run(main())


def test_one_object_is_for_one_server(health: Health) -> None:
    with GrpcHealth(health) as served:
        served.add_to(grpc.server(ThreadPoolExecutor(1)))
        with pytest.raises(ConfigError, match="one object per server"):
            served.add_to(grpc.server(ThreadPoolExecutor(1)))
    assert repr(served).startswith("<GrpcHealth '', 'readiness'")


def test_groups_and_times_that_cannot_be_are_refused(health: Health) -> None:
    with pytest.raises(ConfigError, match="one of startup"):
        GrpcHealth(health, {"a": "ready"})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="every 0"):
        GrpcHealth(health, every=0)
