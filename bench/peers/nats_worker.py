"""A NATS service in Python: `nats_worker.py URL`. Two of them share the calls by their queue group."""

import asyncio
import sys

import nats
from nats.micro import add_service


async def main() -> None:
    connection = await nats.connect(sys.argv[1])
    service = await add_service(connection, name="bench", version="1.0.0")
    group = service.add_group(name="f")

    async def echo(request):
        await request.respond(request.data)

    await group.add_endpoint(name="echo", handler=echo)
    await connection.flush()
    await asyncio.Event().wait()


asyncio.run(main())
