// The line that connects an agent to this server, per framework. What a person copies must work as it stands.

export interface Connecting {
  name: string;
  /** One line for a shell. */
  line: string;
  note: string;
}

/** @param origin of this server, `http://127.0.0.1:8001`; @param token that it asks for, if it asks for one */
export function connecting(origin: string, token: string | null): Connecting[] {
  const endpoint = `OTEL_EXPORTER_OTLP_ENDPOINT=${origin}`;
  // The value of a header is percent-encoded in this variable.
  const headers =
    token === null
      ? ''
      : ` OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20${encodeURIComponent(token).replaceAll("'", '%27')}`;
  const variables = `${endpoint}${headers} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`;
  const instrumented = (name: string, instrumentation: string, more = ''): Connecting => ({
    name,
    line:
      `pip install opentelemetry-distro opentelemetry-exporter-otlp-proto-http ${instrumentation} && ${more}` +
      `${variables} opentelemetry-instrument python agent.py`,
    note: 'In place of agent.py, your program. Nothing in it changes.',
  });
  const bearer = token === null ? '' : `-H 'authorization: Bearer ${quoted(token)}' `;
  return [
    {
      name: 'OpenTelemetry',
      line: `export ${variables}`,
      note: 'For every program with an OpenTelemetry SDK that is started in this shell.',
    },
    instrumented('LangGraph', 'openinference-instrumentation-langchain'),
    instrumented('OpenAI Agents', 'openinference-instrumentation-openai-agents'),
    // CrewAI calls OpenAI with OpenAI's own library, which only that one's instrumentation tells of.
    instrumented('CrewAI', 'openinference-instrumentation-crewai openinference-instrumentation-openai'),
    // It is passed over silently where this package is absent; its requirements would put older ones in place of LlamaIndex's own.
    instrumented(
      'LlamaIndex',
      'openinference-instrumentation-llama-index',
      'pip install --no-deps llama-index-multi-modal-llms-openai && ',
    ),
    {
      name: 'Google ADK',
      line: `pip install opentelemetry-exporter-otlp-proto-http && ${variables} adk web`,
      note: 'ADK sends its own spans where these variables point.',
    },
    {
      name: 'curl',
      line:
        `curl ${bearer}-H 'content-type: application/json' ${origin}/traces/first-run/events ` +
        `-d '{"event_type": "task_started", "agent_id": "me"}'`,
      note: 'An event of your own, from anything that speaks HTTP.',
    },
  ];
}

/** Within single quotes of a shell. */
function quoted(text: string): string {
  return text.replaceAll("'", `'\\''`);
}
