"""An agent under development that streams its run with the dev server's own client.

    agent.py URL SESSION        ends its run when it reads a line
"""

import asyncio
import json
import sys

from agentevals.streaming import enable_streaming
from agentevals.streaming.processor import AgentEvalsStreamingProcessor
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

# Newer SDKs tell processors that a span is about to end, which this client's does not know of.
if not hasattr(AgentEvalsStreamingProcessor, "_on_ending"):
    AgentEvalsStreamingProcessor._on_ending = lambda self, span: None


async def main(url, session):
    trace.set_tracer_provider(TracerProvider())
    async with enable_streaming(ws_url=url.replace("http", "ws", 1) + "/ws/traces", session_name=session):
        tracer = trace.get_tracer("dice")
        call = {"type": "tool_call", "id": "call_1", "name": "roll_die", "arguments": {"sides": 12}}
        user = {"role": "user", "parts": [{"type": "text", "content": "Roll a die for the page"}]}
        said = {"role": "assistant", "parts": [{"type": "text", "content": "It shows 11 on the page."}]}

        def chat(asked, answered):
            with tracer.start_as_current_span("chat gpt-4o") as span:
                span.set_attributes({
                    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
                    "gen_ai.usage.input_tokens": 20, "gen_ai.usage.output_tokens": 5,
                    "gen_ai.input.messages": json.dumps(asked), "gen_ai.output.messages": json.dumps(answered),
                })

        with tracer.start_as_current_span("invoke_agent dice") as span:
            span.set_attributes({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "dice"})
            chat([user], [{"role": "assistant", "parts": [call]}])
            with tracer.start_as_current_span("execute_tool roll_die") as span:
                span.set_attributes({
                    "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "roll_die", "gen_ai.tool.call.id": "call_1",
                    "gen_ai.tool.call.arguments": json.dumps({"sides": 12}), "gen_ai.tool.call.result": json.dumps({"rolled": 11}),
                })
            # The page looks at a session that goes on, and says so.
            await asyncio.to_thread(sys.stdin.readline)
            chat([user, {"role": "assistant", "parts": [call]}], [said])


asyncio.run(main(*sys.argv[1:]))
