const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Any text as the content of an element or of a quoted attribute, in HTML and in SVG. */
export const escapeMarkup = (text: string): string =>
  // What XML has no way to write is left out.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is meant
  text.replace(/[\0-\x08\x0b\x0c\x0e-\x1f]/g, '').replace(/[&<>"']/g, (character) => ENTITIES[character]);

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1f }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
svg { max-width: 100%; height: auto }
.failed { color: #b00020; font-weight: bold }
`;

/** A whole page that needs nothing but itself. The title is text, the body HTML. */
export const page = (title: string, body: string): string => `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeMarkup(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escapeMarkup(title)}</h1>
${body}
</body>
</html>
`;

/** The first row is the heading. */
export function htmlTable([heading, ...rows]: string[][]): string {
  const line = (cells: string[], tag: string) =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeMarkup(cell)}</${tag}>`).join('')}</tr>`;
  return `<table>\n${[line(heading, 'th'), ...rows.map((row) => line(row, 'td'))].join('\n')}\n</table>`;
}

export const paragraph = (text: string, name?: string): string =>
  `<p${name ? ` class="${escapeMarkup(name)}"` : ''}>${escapeMarkup(text)}</p>`;
