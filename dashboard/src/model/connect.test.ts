import { describe, expect, it } from 'vitest';
import { connecting } from './connect';

describe('the line that connects an agent', () => {
  it('names this server, and its token where it asks for one', () => {
    for (const { line } of connecting('http://127.0.0.1:9', null)) {
      expect(line).toContain('http://127.0.0.1:9');
      expect(line).not.toMatch(/\n|authorization/);
    }
    const [otel, , , , , , curl] = connecting('http://h', `to ken'`);
    expect(otel?.line).toBe(
      `export OTEL_EXPORTER_OTLP_ENDPOINT=http://h OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20to%20ken' OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`.replace(
        `ken'`,
        `ken%27`,
      ),
    );
    expect(curl?.line).toContain(`'authorization: Bearer to ken'\\'''`);
  });
});
