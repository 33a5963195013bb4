"""API Gateway's WebSocket API, with the function `socket` behind it: connections are held here, each frame is an invocation, and answers come by the
management API (`@connections`), whose requests must be signed.

Limits are those of the gateway: 128 KiB a message either way. With `in_order` an invocation waits for the one before it; else they run side by side, in
as many processes as there are, as they do there.
"""

import asyncio
import contextlib
import http
import secrets
import urllib.parse

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

import runtime
import sigv4
from http_service import Service

LARGEST_MESSAGE = 128 << 10
REGION = "eu-central-1"
STAGE = "live"


class Gateway:
    def __init__(self, make_function, processes=1, in_order=True):
        """`make_function(variables)`: the function, as something to enter."""
        self.make_function, self.processes, self.in_order = make_function, processes, in_order
        self.clients = {}
        # Ids of connections that are gone and that somebody wanted to tell something.
        self.gone = []
        self.posted, self.mistakes, self.refuse = [], [], []

    async def __aenter__(self):
        self.stack = contextlib.AsyncExitStack()
        management = await self.stack.enter_async_context(Service(self.manage))
        variables = {**sigv4.ROLE, "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": f"{management.url}/{STAGE}"}
        self.functions = [await self.stack.enter_async_context(self.make_function(variables)) for _ in range(self.processes)]
        await asyncio.gather(*[function.until_polls(1) for function in self.functions])
        server = await self.stack.enter_async_context(
            serve(self.hold, "127.0.0.1", 0, process_request=self.connect, max_size=LARGEST_MESSAGE, compression=None))
        self.port = next(iter(server.sockets)).getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_):
        await self.stack.aclose()

    def invoke(self, kind, connection, body=None, **more):
        # No invocation waits behind another one while there is an environment that is idle.
        idlest = min(self.functions, key=lambda function: sum(not answer.ended for answer in function.answers.values()))
        return idlest.invoke(runtime.websocket(kind, connection, body, stage=STAGE, **more))

    async def connect(self, client, request):
        """The handshake: the function says whether the client is let in."""
        client.gateway_id = secrets.token_urlsafe(8) + "="
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(request.path).query)) or None
        answer = await self.invoke("CONNECT", client.gateway_id, headers=dict(request.headers.raw_items()), query=query).end()
        status = answer.value["statusCode"]
        if status != 200:
            return client.respond(http.HTTPStatus(status), "")
        self.clients[client.gateway_id] = client

    async def hold(self, client):
        under_way = set()
        try:
            async for message in client:
                text = message if isinstance(message, str) else message.decode()
                answer = self.invoke("MESSAGE", client.gateway_id, text)
                if self.in_order:
                    await answer.end()
                else:
                    under_way.add(asyncio.create_task(answer.end()))
        except ConnectionClosed:
            pass
        finally:
            self.clients.pop(client.gateway_id, None)
            await asyncio.gather(*under_way)
            await self.invoke("DISCONNECT", client.gateway_id).end()

    async def manage(self, method, target, headers, body):
        if wrong := sigv4.mistake("execute-api", REGION, method, target, headers, body):
            self.mistakes.append(wrong)
            return 403, {"x-amzn-errortype": "MissingAuthenticationTokenException"}, b"{}"
        if self.refuse:
            return self.refuse.pop(0), {}, b"{}"
        prefix = f"/{STAGE}/@connections/"
        connection = urllib.parse.unquote(target.removeprefix(prefix))
        client = self.clients.get(connection) if target.startswith(prefix) else None
        if client is None:
            self.gone.append(connection)
            return 410, {"x-amzn-errortype": "GoneException:"}, b"{}"
        if len(body) > LARGEST_MESSAGE:
            return 413, {"x-amzn-errortype": "PayloadTooLargeException"}, b"{}"
        if method == "DELETE":
            await client.close()
            return 204, {}, b""
        self.posted.append(body)
        with contextlib.suppress(ConnectionClosed):
            await client.send(body.decode())
        return 200, {}, b""
