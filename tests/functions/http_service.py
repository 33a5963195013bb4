"""A service of one answer to a request, over HTTP/1.1 on a free port of this machine."""

import asyncio
import contextlib


class Service:
    """`answer(method, target, headers, body)` says (status, headers, body) of each request; names of headers are in lower case."""

    def __init__(self, answer):
        self.answer = answer
        self.connections = set()

    async def __aenter__(self):
        def connected(reader, writer):
            connection = asyncio.create_task(self.serve(reader, writer))
            self.connections.add(connection)
            connection.add_done_callback(self.connections.discard)

        self.server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for connection in [*self.connections]:
            connection.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                method, target, _ = line.split(" ")
                headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, given, answer = await self.answer(method, target, headers, body)
                head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
                writer.write(f"HTTP/1.1 {status} Told\r\ncontent-length: {len(answer)}\r\n{head}\r\n".encode() + answer)
                await writer.drain()
        writer.close()
