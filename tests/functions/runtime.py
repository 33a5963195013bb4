"""The Lambda runtime API (2018-06-01) as the platform has it, for one process of a function at a time.

A `Function` is a built program. `invoke` queues an event; the program polls for it (`/runtime/invocation/next`), and answers whole or in chunks
(`/response`), or with an error (`/error`, `/runtime/init/error`). What it does is kept in its order in `calls`, so that a test can say what came
before what. Unlike the emulator of cargo-lambda it reads an answer to its end before it says so, as the platform does: that is why one open stream
takes a whole environment there.
"""

import asyncio
import contextlib
import itertools
import json
import os
import time

VERSION = "/2018-06-01/runtime"
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:"
PATIENCE_SECONDS = 30


class Wrong(Exception):
    """What a function did is not what the runtime API asks for."""


class Answer:
    """What came of one invocation, as it comes."""

    def __init__(self, number):
        self.id = f"8476a536-e9f4-11e8-9739-{number:012x}"
        self.xray = f"Root=1-5bef4de7-{number:024x};Parent=9a9197af755a6419;Sampled=1"
        self.headers, self.trailers, self.chunks = {}, {}, []
        self.error = None
        self.changed = asyncio.Condition()
        self.ended = False

    async def took(self, chunk=None, ended=False):
        async with self.changed:
            if chunk:
                self.chunks.append(chunk)
            self.ended |= ended
            self.changed.notify_all()

    async def until(self, holds, seconds=PATIENCE_SECONDS):
        """Waits until this is so of the answer."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: holds(self)), seconds)
        return self

    async def end(self, seconds=PATIENCE_SECONDS):
        return await self.until(lambda answer: answer.ended, seconds)

    @property
    def is_streamed(self):
        return self.headers.get("lambda-runtime-function-response-mode") == "streaming"

    @property
    def bytes(self):
        return b"".join(self.chunks)

    @property
    def prelude(self):
        """Status, headers and cookies of a streamed answer; None before they came."""
        head, separator, _ = self.bytes.partition(b"\0" * 8)
        return json.loads(head) if separator else None

    @property
    def value(self):
        """A buffered answer."""
        return json.loads(self.bytes)

    @property
    def status(self):
        return self.prelude["statusCode"] if self.is_streamed else self.value["statusCode"]

    @property
    def body(self):
        if self.is_streamed or not self.ended:
            return self.bytes.partition(b"\0" * 8)[2]
        return (self.value.get("body") or "").encode()


class Function:
    """A program under the runtime API, for as long as the block lasts."""

    def __init__(self, program, name, environment, concurrency=None):
        self.program, self.name = program, name
        self.environment = dict(environment)
        if concurrency:
            self.environment["AWS_LAMBDA_MAX_CONCURRENCY"] = str(concurrency)
        self.numbers = itertools.count(1)
        self.waiting = asyncio.Queue()
        self.answers = {}
        self.calls = []
        self.polls = asyncio.Condition()
        self.polled = 0
        self.init_error = None
        self.stdout, self.stderr = [], []
        # What no connection may go on with: the test tells of it.
        self.wrong = None
        self.connections = set()

    async def __aenter__(self):
        def connected(reader, writer):
            connection = asyncio.create_task(self.serve(reader, writer))
            self.connections.add(connection)
            connection.add_done_callback(self.connections.discard)

        self.server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
        port = self.server.sockets[0].getsockname()[1]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TAILSPAN_", "AWS_"))}
        environment.update(
            AWS_LAMBDA_RUNTIME_API=f"127.0.0.1:{port}", AWS_LAMBDA_FUNCTION_NAME=self.name, AWS_LAMBDA_FUNCTION_MEMORY_SIZE="256",
            AWS_LAMBDA_FUNCTION_VERSION="$LATEST", AWS_LAMBDA_LOG_STREAM_NAME="stream", AWS_LAMBDA_LOG_GROUP_NAME="group",
            AWS_REGION="eu-central-1", AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH="true")
        environment.update(self.environment)
        self.process = await asyncio.create_subprocess_exec(
            self.program, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 24)
        self.readers = [asyncio.create_task(self.read(self.process.stdout, self.stdout)), asyncio.create_task(self.read(self.process.stderr, self.stderr))]
        return self

    async def __aexit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self.readers)
        self.server.close()
        for connection in [*self.connections]:
            connection.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)
        if self.wrong:
            raise self.wrong

    async def read(self, pipe, lines):
        while line := await pipe.readline():
            lines.append(line.decode().rstrip("\n"))

    def invoke(self, event, seconds=60.0):
        """Queues an event whose deadline is so far away; its answer, which is still to come. An event that is bytes is sent as it is."""
        answer = Answer(next(self.numbers))
        self.answers[answer.id] = answer
        payload = event if isinstance(event, bytes) else json.dumps(event).encode()
        self.waiting.put_nowait((answer, payload, seconds))
        return answer

    async def ask(self, event, seconds=60.0):
        return await self.invoke(event, seconds).end()

    async def until_polls(self, count):
        async with self.polls:
            await asyncio.wait_for(self.polls.wait_for(lambda: self.polled >= count), PATIENCE_SECONDS)

    async def exit_code(self):
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    async def serve(self, reader, writer):
        try:
            while True:
                await self.one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (Wrong, ValueError) as error:
            self.wrong = Wrong(f"{self.name}: {error}")
        finally:
            writer.close()

    async def one(self, reader, writer):
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        method, path, _ = line.split(" ")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        if (method, path) == ("GET", f"{VERSION}/invocation/next"):
            await self.next(writer)
            return
        if method != "POST" or not path.startswith(VERSION):
            raise Wrong(f"{method} {path}")
        *_, of, what = path.split("/")
        if what == "error" and of == "init":
            body = b"".join([chunk async for chunk in chunks(reader, headers, {})])
            self.init_error = (headers, json.loads(body))
            self.calls.append("init error")
        elif what in ("response", "error") and of in self.answers:
            answer = self.answers[of]
            answer.headers = headers
            self.calls.append(f"{what} begins")
            async for chunk in chunks(reader, headers, answer.trailers):
                if what == "error":
                    answer.error = json.loads((answer.bytes + chunk).decode())
                await answer.took(chunk)
            self.calls.append(f"{what} ends")
            await answer.took(ended=True)
        else:
            raise Wrong(f"{method} {path}: no such invocation")
        writer.write(b'HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{"status": "OK"}')
        await writer.drain()

    async def next(self, writer):
        self.calls.append("next")
        async with self.polls:
            self.polled += 1
            self.polls.notify_all()
        answer, payload, seconds = await self.waiting.get()
        deadline = int((time.time() + seconds) * 1000)
        head = (f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\nlambda-runtime-aws-request-id: {answer.id}\r\n"
                f"lambda-runtime-deadline-ms: {deadline}\r\nlambda-runtime-invoked-function-arn: {ARN}{self.name}\r\nlambda-runtime-trace-id: {answer.xray}\r\n\r\n")
        writer.write(head.encode() + payload)
        await writer.drain()


async def chunks(reader, headers, trailers):
    """A body of a known length, or in chunks, with the trailers behind them."""
    if "content-length" in headers:
        if length := int(headers["content-length"]):
            yield await reader.readexactly(length)
        return
    if headers.get("transfer-encoding") != "chunked":
        raise Wrong("a body of no known length")
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    while field := (await reader.readline()).decode().strip():
        name, value = field.split(": ", 1)
        trailers[name.lower()] = value


# --- Events, as the gateways send them (AWS: "Working with AWS Lambda proxy integrations", "Invoking Lambda function URLs") ----------------------------


def http_v2(method, path, body=None, headers=None, query="", domain="abc123.execute-api.eu-central-1.amazonaws.com"):
    """An HTTP API, payload format 2.0."""
    event = {
        "version": "2.0", "routeKey": f"{method} {path}", "rawPath": path, "rawQueryString": query, "isBase64Encoded": False,
        "headers": {"host": domain, "content-type": "application/json", "x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https", **(headers or {})},
        "requestContext": {
            "accountId": "123456789012", "apiId": "abc123", "domainName": domain, "domainPrefix": "abc123", "requestId": "JKJaXmPLvHcESHA=",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.9", "userAgent": "agent"},
            "routeKey": f"{method} {path}", "stage": "$default", "time": "10/Oct/2026:13:40:52 +0000", "timeEpoch": 1791639652000}}
    if query:
        event["queryStringParameters"] = dict(pair.split("=", 1) for pair in query.split("&"))
    if body is not None:
        event["body"] = body
    return event


def function_url(method, path, body=None, headers=None, query=""):
    """A function URL: format 2.0 with what only it has."""
    event = http_v2(method, path, body, headers, query, "urlid.lambda-url.eu-central-1.on.aws")
    event["routeKey"] = event["requestContext"]["routeKey"] = "$default"
    event["requestContext"]["accountId"] = "anonymous"
    return event


def rest_v1(method, path, body=None, headers=None, query="", stage="live"):
    """A REST API: its stage stands before the path in what the caller asked for."""
    given = {"Host": "abc123.execute-api.eu-central-1.amazonaws.com", "Content-Type": "application/json", "X-Forwarded-Proto": "https", **(headers or {})}
    pairs = dict(pair.split("=", 1) for pair in query.split("&")) if query else None
    return {
        "resource": "/{proxy+}", "path": path, "httpMethod": method, "headers": given, "multiValueHeaders": {name: [value] for name, value in given.items()},
        "queryStringParameters": pairs, "multiValueQueryStringParameters": pairs and {name: [value] for name, value in pairs.items()},
        "pathParameters": {"proxy": path.lstrip("/")}, "stageVariables": None, "body": body, "isBase64Encoded": False,
        "requestContext": {
            "accountId": "123456789012", "apiId": "abc123", "resourceId": "123456", "resourcePath": "/{proxy+}", "httpMethod": method,
            "path": f"/{stage}{path}", "protocol": "HTTP/1.1", "stage": stage, "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "requestTime": "10/Oct/2026:13:40:52 +0000", "requestTimeEpoch": 1791639652000, "domainName": given["Host"],
            "identity": {"sourceIp": "203.0.113.9", "userAgent": "agent", "accessKey": None, "accountId": None, "caller": None, "user": None, "userArn": None}}}


def websocket(kind, connection, body=None, headers=None, query=None, domain="abc123.execute-api.eu-central-1.amazonaws.com", stage="live"):
    """A WebSocket API: $connect with the handshake's headers, $disconnect, and a message."""
    route = {"CONNECT": "$connect", "DISCONNECT": "$disconnect", "MESSAGE": "$default"}[kind]
    event = {
        "isBase64Encoded": False,
        "requestContext": {
            "routeKey": route, "eventType": kind, "extendedRequestId": "IcpMDEm4FiAFvWw=", "requestTime": "10/Oct/2026:13:40:52 +0000",
            "messageDirection": "IN", "stage": stage, "connectedAt": 1791639652000, "requestTimeEpoch": 1791639652100, "requestId": "IcpMDEm4FiAFvWw=",
            "domainName": domain, "connectionId": connection, "apiId": "abc123", "identity": {"sourceIp": "203.0.113.9"}}}
    if kind == "CONNECT":
        given = {"Host": domain, "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **(headers or {})}
        event.update(headers=given, multiValueHeaders={name: [value] for name, value in given.items()}, queryStringParameters=query)
    if kind == "DISCONNECT":
        event["requestContext"].update(disconnectStatusCode=1005, disconnectReason="Client-side close frame status not set")
    if body is not None:
        event["requestContext"]["messageId"] = "IcpMDEm4FiAFvWw="
        event["body"] = body
    return event


def schedule(name="tailspan-sweep"):
    """A rule of EventBridge."""
    return {
        "version": "0", "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", "detail-type": "Scheduled Event", "source": "aws.events", "account": "123456789012",
        "time": "2026-10-10T13:40:00Z", "region": "eu-central-1", "resources": [f"arn:aws:events:eu-central-1:123456789012:rule/{name}"], "detail": {}}
