/** What was said to and by models and tools, out of events: strangers wrote it, so every field is looked at before it is used. */

export interface Call {
  id: string | null;
  name: string;
  /** `undefined`: not told. */
  args: unknown;
}

export interface Message {
  role: string;
  /** The words; empty where there are none. */
  text: string;
  /** What is no text: the structure that a producer sent as its content. */
  value: unknown;
  calls: readonly Call[];
  /** Of a tool's answer: the call that it answers. */
  callId: string | null;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The messages that a call was sent or answered with; what is no list of messages is one message of this role. */
export function messages(value: unknown, role: string): Message[] {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value) && value.length > 0 && value.every(isMessage)) return (value as unknown[]).map(message);
  // A message alone, as native producers send it.
  if (isMessage(value)) return [message(value)];
  if (typeof value === 'string') return value === '' ? [] : [{ ...nothing(role), text: value }];
  return [{ ...nothing(role), value }];
}

function isMessage(value: unknown): boolean {
  return isRecord(value) && typeof value.role === 'string' && ('content' in value || 'tool_calls' in value);
}

function message(value: unknown): Message {
  const fields = isRecord(value) ? value : {};
  const { role, content, tool_calls: calls, tool_call_id: callId } = fields;
  const text = typeof content === 'string' ? content : textOf(content);
  return {
    role: typeof role === 'string' ? role : 'unknown',
    text: text ?? '',
    value: text === null ? content : undefined,
    calls: Array.isArray(calls) ? (calls as unknown[]).map(call) : [],
    callId: typeof callId === 'string' ? callId : null,
  };
}

/** The words of a list of text parts; `null` for what holds anything else. */
function textOf(content: unknown): string | null {
  if (content === undefined || content === null) return '';
  if (!Array.isArray(content) || content.length === 0) return null;
  const parts: string[] = [];
  for (const part of content as unknown[]) {
    const text = typeof part === 'string' ? part : isRecord(part) ? part.text : null;
    if (typeof text !== 'string') return null;
    parts.push(text);
  }
  return parts.join('');
}

function call(value: unknown): Call {
  const fields = isRecord(value) ? value : {};
  // As OpenAI's clients write them, within `function`; and plainly.
  const inner = isRecord(fields.function) ? fields.function : fields;
  return {
    id: typeof fields.id === 'string' ? fields.id : null,
    name: typeof inner.name === 'string' ? inner.name : '',
    args: inner.arguments ?? inner.args,
  };
}

function nothing(role: string): Message {
  return { role, text: '', value: undefined, calls: [], callId: null };
}

/** Two messages are the same when they say the same in the same role. */
export function sameKey(message: Message): string {
  const value = message.value === undefined ? '' : JSON.stringify(message.value);
  const calls = message.calls.length === 0 ? '' : JSON.stringify(message.calls);
  return `${message.role}\u0000${message.text.trim()}\u0000${value}\u0000${calls}`;
}
