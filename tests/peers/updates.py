#!/usr/bin/env python3
"""Tells the same sessions to the dev server of seed 002 and to Tailspan, and compares what their listeners are told, frame by frame.

    tests/peers/updates.py HOST:PORT-of-the-original HOST:PORT-of-tailspan

Needs websockets and httpx, which the original (agentevals-cli[streaming]==0.7.3) brings. Where the two must differ by a deliberate
correction (docs/protocol.md), the case says which frames of the original are left out and which are added. What `session_complete`
says is not compared here: only that it comes last. Prints a line for each case, and exits 1 when one failed.
"""

import asyncio
import json
import sys
import threading

import httpx
import websockets

START_NS = 1_760_000_000_000_000_000
ATTEMPTS = 100


def attribute(key, value):
    if isinstance(value, int):
        return {"key": key, "value": {"intValue": value}}
    text = value if isinstance(value, str) else json.dumps(value)
    return {"key": key, "value": {"stringValue": text}}


def span(number, parent, name, start, end, **attributes):
    named = {key.replace("__", "."): value for key, value in attributes.items() if value is not None}
    return {"type": "span", "span": {
        "traceId": "a1" * 16, "spanId": f"{number:016x}", "parentSpanId": f"{parent:016x}" if parent else None,
        "name": name, "kind": 2, "startTimeUnixNano": str(START_NS + start * 10**7),
        "endTimeUnixNano": str(START_NS + end * 10**7),
        "attributes": [attribute(key, value) for key, value in named.items()], "status": {"code": 0}}}


def chat(number, parent, start, end, asked=None, answered=None):
    return span(number, parent, "chat m", start, end, gen_ai__operation__name="chat", gen_ai__request__model="m",
                gen_ai__usage__input_tokens=10, gen_ai__usage__output_tokens=5,
                gen_ai__input__messages=asked, gen_ai__output__messages=answered)


def agent(number, start, end):
    return span(number, 0, "invoke_agent dice", start, end, gen_ai__operation__name="invoke_agent")


def tool(number, parent):
    return span(number, parent, "execute_tool roll", 10, 11, gen_ai__tool__name="roll", gen_ai__tool__type="function",
                gen_ai__tool__description="rolls", gen_ai__tool__call__id="c1",
                gen_ai__tool__call__arguments={"sides": 20}, gen_ai__tool__call__result={"result": 13})


def adk(number, parent, name, start, end, **attributes):
    return span(number, parent, name, start, end, otel__scope__name="gcp.vertex.agent",
                gcp__vertex__agent__invocation_id="e-1", **attributes)


def log(name, at, **body):
    return {"type": "log", "log": {"event_name": name, "timestamp": str(START_NS + at * 10**7), "body": body, "attributes": {}}}


def says(role, text):
    return {"role": role, "parts": [{"type": "text", "content": text}]}


USER = says("user", "Roll")
ASKS = {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "roll", "arguments": {"sides": 20}}]}
GOT = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": {"result": 13}}]}
DONE = says("assistant", "13.")
REMARK = {"role": "assistant", "parts": [{"type": "text", "content": "I roll."}, *ASKS["parts"]]}
FUNCTION = {"id": "c1", "type": "function", "function": {"name": "roll", "arguments": "{\"sides\": 20}"}}
GEMINI_ASKS = {"role": "model", "parts": [{"function_call": {"id": "c1", "name": "roll", "args": {"sides": 20}}}]}
GEMINI_USER = {"role": "user", "parts": [{"text": "Roll"}]}
GEMINI_GOT = {"role": "user", "parts": [{"function_response": {"id": "c1", "name": "roll", "response": {"result": 13}}}]}

# (name, frames, what only the original tells, what only Tailspan tells), the last two as (type, text or tool).
CASES = [
    ("one call", [chat(2, 0, 1, 9, [USER], [DONE])], [], []),
    ("a tool under an agent", [
        chat(2, 1, 1, 9, [USER], [ASKS]), tool(3, 1), chat(4, 1, 12, 15, [USER, ASKS, GOT], [DONE]), agent(1, 0, 16),
    ], [], []),
    ("two turns with a history", [
        chat(2, 1, 1, 9, [USER], [says("assistant", "4")]), agent(1, 0, 10),
        chat(12, 11, 21, 29, [USER, says("assistant", "4"), says("user", "Again")], [says("assistant", "5")]), agent(11, 20, 30),
    ], [], []),
    ("bare calls and a tool", [
        chat(2, 0, 1, 9, [USER], [ASKS]), tool(3, 0), chat(4, 0, 12, 15, [USER, ASKS, GOT], [DONE]),
    ], [], []),
    ("Google ADK", [
        adk(3, 2, "call_llm", 2, 5, gen_ai__request__model="g", gen_ai__usage__input_tokens=5,
            gcp__vertex__agent__llm_request={"contents": [GEMINI_USER]}, gcp__vertex__agent__llm_response={"content": GEMINI_ASKS}),
        adk(4, 2, "execute_tool roll", 6, 7, gen_ai__tool__name="roll", gen_ai__tool__call__id="c1",
            gcp__vertex__agent__tool_call_args={"sides": 20}, gcp__vertex__agent__tool_response={"result": 13}),
        adk(5, 2, "call_llm", 8, 9, gen_ai__request__model="g", gen_ai__usage__input_tokens=9,
            gcp__vertex__agent__llm_request={"contents": [GEMINI_USER, GEMINI_ASKS, GEMINI_GOT]},
            gcp__vertex__agent__llm_response={"content": {"role": "model", "parts": [{"text": "13."}]}}),
        adk(2, 1, "invoke_agent dice", 1, 10), adk(1, 0, "invocation", 0, 11),
    ], [], []),
    ("the same question in two turns", [
        chat(2, 1, 1, 9, [USER], [says("assistant", "4")]), agent(1, 0, 10),
        chat(12, 11, 21, 29, [USER], [says("assistant", "5")]), agent(11, 20, 30),
    ], [], [("user_input", "Roll")]),
    ("a call that no span tells of", [
        chat(2, 0, 1, 9, [USER], [ASKS]), chat(4, 0, 12, 15, [USER, ASKS, GOT], [DONE]),
    ], [], [("tool_call", "roll"), ("tool_result", "roll")]),
    ("a remark beside a call", [
        chat(2, 1, 1, 9, [USER], [REMARK]), tool(3, 1), chat(4, 1, 12, 15, [USER, REMARK, GOT], [DONE]), agent(1, 0, 16),
    ], [], [("agent_response", "13.")]),
    ("messages in log records", [
        log("gen_ai.user.message", 1, content="Roll"),
        log("gen_ai.choice", 8, message={"role": "assistant", "tool_calls": [FUNCTION]}),
        chat(2, 0, 1, 9),
        log("gen_ai.user.message", 12, content="Roll"), log("gen_ai.assistant.message", 12, tool_calls=[FUNCTION]),
        log("gen_ai.tool.message", 12, content="13", id="c1"),
        log("gen_ai.choice", 14, message={"role": "assistant", "content": "13."}),
        chat(4, 0, 12, 15),
    ], [("user_input", "Roll"), ("tool_call", "roll")], [("user_input", "Roll"), ("tool_call", "roll")]),
]


def listen(address, frames):
    with httpx.stream("GET", f"http://{address}/stream/ui-updates", timeout=None) as response:
        frames.append(None)
        for line in response.iter_lines():
            if line.startswith("data: "):
                frames.append(json.loads(line[6:]))


async def until(is_so):
    for _ in range(ATTEMPTS):
        if is_so():
            return
        await asyncio.sleep(0.1)
    raise TimeoutError("nothing came")


async def tell(address, session, frames):
    async with websockets.connect(f"ws://{address}/ws/traces", max_size=None) as connection:
        begin = {"type": "session_start", "session_id": session, "trace_id": "b" * 32}
        for frame in [begin, *frames, {"type": "session_end"}]:
            await connection.send(json.dumps({**frame, "session_id": session}))
        await asyncio.wait_for(connection.recv(), 20)


def short(frame):
    named = frame.get("text") or frame.get("toolName") or frame.get("toolCall", {}).get("name")
    return frame["type"], named


def comparable(frame):
    if frame["type"] == "session_complete":
        return "session_complete"
    if frame["type"] == "session_started":
        return json.dumps({**frame, "session": {**frame["session"], "startedAt": "?"}})
    return json.dumps(frame)


def without(frames, left_out):
    """The frames as lines, in order, without the last of each that is left out; and whether all of those were there."""
    left, kept, found = list(left_out), [], 0
    for frame in reversed(frames):
        if short(frame) in left:
            left.remove(short(frame))
            found += 1
        else:
            kept.append(comparable(frame))
    return kept[::-1], found == len(left_out)


async def check(addresses, heard, name, frames, only_theirs, only_ours):
    for address, told in zip(addresses, heard):
        told.clear()
        await tell(address, name, frames)
        await until(lambda told=told: told and told[-1]["type"] == "session_complete")
    theirs, all_theirs = without(heard[0], only_theirs)
    ours, all_ours = without(heard[1], only_ours)
    if all_theirs and all_ours and theirs == ours:
        print(f"ok    {name}: {len(ours)} frames alike, {len(only_ours)} corrected")
        return True
    print(f"WRONG {name}")
    for which, told in (("original", heard[0]), ("tailspan", heard[1])):
        for frame in told:
            print(f"    {which}: {json.dumps(frame)[:240]}")
    return False


async def main():
    addresses, heard = sys.argv[1:3], [[], []]
    for address, frames in zip(addresses, heard):
        threading.Thread(target=listen, args=(address, frames), daemon=True).start()
        await until(lambda frames=frames: frames)
    good = [await check(addresses, heard, *case) for case in CASES]
    sys.exit(not all(good))


if __name__ == "__main__":
    asyncio.run(main())
