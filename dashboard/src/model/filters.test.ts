import { describe, expect, it } from 'vitest';
import { isOpen, NO_FILTERS, parse, toAddress, toApi } from './filters';

describe('filters of the list', () => {
  it('stand in the address and come back from it', () => {
    const address = 'status=failed&agent_id=a%26b&text=x&has_error=true&min_duration=1.5s&since=24h&list=sessions';
    const filters = parse(new URLSearchParams(address));
    const back = new URLSearchParams();
    for (const [name, value] of Object.entries(toAddress(filters))) if (value !== null) back.set(name, value);
    expect(parse(back)).toEqual(filters);
    expect(filters).toMatchObject({ status: 'failed', agent: 'a&b', hasError: true, what: 'sessions' });
  });

  it('pass over what is none', () => {
    const filters = parse(
      new URLSearchParams('status=happy&since=ever&has_error=maybe&min_duration=long&page=3&text=%20'),
    );
    expect(filters).toEqual(NO_FILTERS);
    expect(isOpen(filters)).toBe(true);
    expect(isOpen({ ...filters, text: 'x' })).toBe(false);
  });

  it('ask the API in its words', () => {
    const filters = parse(new URLSearchParams('status=running&since=1h'));
    const query = toApi(filters, 50, Date.UTC(2026, 0, 1, 12));
    expect(query.toString()).toBe('status=running&start_time=2026-01-01T11%3A00%3A00.000Z&limit=50');
  });
});
