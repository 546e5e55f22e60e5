import httpx
from outlast import drill


class Shop(drill.Drill):
    """No acknowledged order is lost."""

    nodes = drill.Nodes("python -m shop --port {port} --data {dir}", count=3, ready="/readyz")
    faults, model = ["crash", "pause", "partition:halves", "disk:full"], "set"

    async def connect(self, node: drill.Node) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=node.url)

    @drill.operation  # return = ok; happened(error) "no" = fail; any other exception = info
    async def add(self, client: httpx.AsyncClient, value: int) -> None:
        (await client.put(f"/orders/{value}")).raise_for_status()

    @drill.operation(final=True)
    async def read(self, client: httpx.AsyncClient) -> list[int]:
        return (await client.get("/orders")).json()


report = drill.run(Shop, seconds=60, seed=7)  # blocking, own thread: pytest and Jupyter
assert report.verdict == "survived", report  # str(report) is the CLI's table
