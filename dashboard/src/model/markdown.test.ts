import { describe, expect, it } from 'vitest';
import { blocks, hasMarkup, target, LONGEST } from './markdown';

describe('markdown is read as blocks', () => {
  it('knows what people write', () => {
    const text = [
      '# Title',
      'A **bold** and `code` [link](https://example.org/a?b=1).',
      '',
      '1. one',
      '2. two',
      '   - inner',
      '',
      '> said',
      '',
      '```python',
      'print("<b>")',
      '```',
      '',
      '| a | b |',
      '|---|--:|',
      '| 1 | 2 |',
    ].join('\n');
    expect(blocks(text)).toMatchSnapshot();
  });

  it('leaves HTML as text', () => {
    const said = JSON.stringify(blocks('<script>alert(1)</script>\n\nhi <img src=x onerror=alert(1)> there'));
    expect(said).toContain('<script>alert(1)</script>');
    expect(said).toContain('<img src=x onerror=alert(1)>');
    expect(said).not.toContain('"link"');
  });

  it('makes of an image a link', () => {
    expect(blocks('![chart](https://evil.example/x.png?leak=1)')).toEqual([
      {
        kind: 'paragraph',
        children: [
          {
            kind: 'link',
            href: 'https://evil.example/x.png?leak=1',
            isImage: true,
            children: [{ kind: 'text', text: 'chart' }],
          },
        ],
      },
    ]);
  });
});

describe('a link leads to the web or to mail', () => {
  it.each([
    ['https://example.org/a b', null],
    ['https://example.org/a', 'https://example.org/a'],
    ['HTTP://EXAMPLE.org', 'http://example.org/'],
    ['mailto:a@example.org', 'mailto:a@example.org'],
    ['javascript:alert(1)', null],
    ['JaVaScRiPt:alert(1)', null],
    ['java\nscript:alert(1)', null],
    ['data:text/html,<script>alert(1)</script>', null],
    ['vbscript:x', null],
    ['file:///etc/passwd', null],
    ['//evil.example', null],
    ['/traces', null],
    ['https://github.com@evil.example/', null],
    ['https://', null],
    ['', null],
  ])('%s', (href, expected) => {
    expect(target(href)).toBe(expected);
  });
});

describe('no text costs the page', () => {
  const cases: [string, string][] = [
    ['quotes', '>'.repeat(LONGEST)],
    [
      'lists',
      Array.from({ length: 500 }, (_, depth) => `${' '.repeat(depth)}- x`)
        .join('\n')
        .slice(0, LONGEST),
    ],
    ['stars', '*a **'.repeat(LONGEST / 5)],
    ['underscores', '_'.repeat(LONGEST)],
    ['brackets', '['.repeat(LONGEST)],
    ['closed brackets', '[a]('.repeat(LONGEST / 4)],
    ['images', '![]('.repeat(LONGEST / 4)],
    ['ticks', Array.from({ length: 250 }, (_, length) => '`'.repeat(length)).join(' ')],
    ['entities', '&amp'.repeat(LONGEST / 4)],
    ['pipes', `|a|\n|-|\n${'|'.repeat(1_000)}\n`.repeat(30)],
    [
      'references',
      Array.from({ length: 1_500 }, (_, at) => `[${String(at)}]: x`)
        .join('\n')
        .slice(0, LONGEST),
    ],
    ['backslashes', '\\'.repeat(LONGEST)],
    ['nested emphasis', `${'*_'.repeat(1_000)}x${'_*'.repeat(1_000)}`],
    ['nulls', '\u0000'.repeat(LONGEST)],
  ];
  it.each(cases)('%s', (_, text) => {
    expect(() => blocks(text)).not.toThrow();
  });

  it('leaves what is too long as it stands', () => {
    expect(blocks('x'.repeat(LONGEST + 1))).toBeNull();
    expect(blocks('- x\n'.repeat(LONGEST / 4))).toBeNull();
  });
});

it('knows plain words', () => {
  expect(hasMarkup('Roll a die and tell me.')).toBe(false);
  expect(hasMarkup('**now**')).toBe(true);
  expect(hasMarkup('1. one')).toBe(true);
});
