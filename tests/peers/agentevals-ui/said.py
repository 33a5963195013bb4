"""Tells a server of sessions that are complete, over its WebSocket.

    said.py URL
"""

import asyncio
import json
import sys

import websockets

MS = 1_000_000
T0 = 1_760_000_000_000 * MS


def attribute(key, value):
    kinds = {bool: "boolValue", int: "intValue", float: "doubleValue"}
    return {"key": key, "value": {kinds.get(type(value), "stringValue"): value}}


def attributes(**values):
    return [attribute(name.replace("__", "."), value) for name, value in values.items()]


def message(role, text, *calls):
    parts = [{"type": "text", "content": text}] if text else []
    parts += [{"type": "tool_call", "id": id, "name": name, "arguments": args} for id, name, args in calls]
    return {"role": role, "parts": parts}


def span(number, parent, name, from_ms, to_ms, kind=2, code=0, **values):
    return {
        "traceId": f"{0xA1:032x}", "spanId": f"{number:016x}", "parentSpanId": f"{parent:016x}" if parent else None, "name": name, "kind": kind,
        "startTimeUnixNano": str(T0 + from_ms * MS), "endTimeUnixNano": str(T0 + to_ms * MS), "status": {"code": code},
        "attributes": attributes(otel__scope__name="said", **values),
    }


def model_call(number, parent, from_ms, to_ms, asked, answered, tokens):
    return span(
        number, parent, "chat gpt-4o", from_ms, to_ms, gen_ai__operation__name="chat", gen_ai__system="openai", gen_ai__request__model="gpt-4o",
        gen_ai__response__model="gpt-4o-2024-08-06", gen_ai__usage__input_tokens=tokens[0], gen_ai__usage__output_tokens=tokens[1],
        gen_ai__input__messages=json.dumps(asked), gen_ai__output__messages=json.dumps(answered),
    )


def dice(sides, rolled, question="Roll a die", first=1, from_ms=0):
    """A turn of an agent that rolls a die."""
    call = ("call_1", "roll_die", {"sides": sides, "with_luck": True})
    user, answer = message("user", question), f"It shows {rolled}."
    return [
        model_call(first + 1, first, from_ms + 10, from_ms + 210, [user], [message("assistant", "", call)], (20, 5)),
        span(first + 2, first, "execute_tool roll_die", from_ms + 220, from_ms + 300, 0, gen_ai__operation__name="execute_tool", gen_ai__tool__name="roll_die",
             gen_ai__tool__call__id="call_1", gen_ai__tool__call__arguments=json.dumps(call[2]), gen_ai__tool__call__result=json.dumps({"rolled_number": rolled})),
        model_call(first + 3, first, from_ms + 310, from_ms + 500, [user, message("assistant", "", call)], [message("assistant", answer)], (40, 8)),
        span(first, None, "invoke_agent dice", from_ms, from_ms + 510, 0, gen_ai__operation__name="invoke_agent", gen_ai__agent__name="dice"),
    ]


def session(name, trace, spans, **start):
    """The frames of a session."""
    yield {"type": "session_start", "session_id": name, "trace_id": trace, **start}
    for it in spans:
        yield {"type": "span", "session_id": name, "span": it}
    yield {"type": "session_end", "session_id": name}


FIRST, SECOND = dice(20, 17), dice(6, 2, "Roll another die", 11, 1000)
SESSIONS = [
    list(session("golden", "1" * 32, FIRST + SECOND, eval_set_id="dice", metadata={"model": "gpt-4o", "try_number": 1})),
    list(session("another", "2" * 32, FIRST + dice(8, 2, "Roll another die", 11, 1000))),
]


async def tell(url, sessions):
    """Tells a server of the sessions, and waits until each is taken in."""
    async with websockets.connect(url.replace("http", "ws", 1) + "/ws/traces", max_size=None) as socket:
        for frames in sessions:
            for frame in frames:
                await socket.send(json.dumps(frame))
            if json.loads(await socket.recv())["type"] != "session_complete":
                sys.exit(f"{frames[0]['session_id']} was not completed")


if __name__ == "__main__":
    asyncio.run(tell(sys.argv[1], SESSIONS))
