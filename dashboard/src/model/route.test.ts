import { describe, expect, it } from 'vitest';
import { compareHref, parse, runHref, sessionHref } from './route';

const at = (href: string) => {
  const url = new URL(href, 'http://page');
  return parse(url.pathname, url.search);
};

describe('addresses', () => {
  it('lead back to what they were made of', () => {
    const odd = 'a/b?c#d e%ü';
    expect(at(runHref(odd, 'graph', odd))).toMatchObject({ page: 'run', id: odd, view: 'graph', span: odd });
    expect(at(sessionHref(odd))).toMatchObject({ page: 'session', session: odd });
    expect(at(compareHref(odd, null))).toMatchObject({ page: 'compare', a: odd, b: null });
    expect(at('/?status=failed')).toMatchObject({ page: 'runs' });
    expect(at('/evaluate')).toMatchObject({ page: 'evaluate' });
  });

  it('of nothing that there is are told apart from pages', () => {
    expect(at('/runs')).toMatchObject({ page: 'unknown' });
    expect(at('/runs/a/b')).toMatchObject({ page: 'unknown' });
    expect(parse('/runs/%E0%A4%A', '')).toMatchObject({ page: 'unknown' });
    expect(at('/runs/x?view=nonsense')).toMatchObject({ page: 'run', view: 'waterfall' });
  });
});
