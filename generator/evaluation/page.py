"""A report of parts with tables and pictures, written once as HTML and once as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment

HTML_NAME, MARKDOWN_NAME = "index.html", "report.md"


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; `note` says how to read it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture file beside the page."""

    file: str
    caption: str
    marked: bool = False


@dataclass(frozen=True)
class Part:
    """A section."""

    title: str
    text: str = ""
    tables: Sequence[Table] = field(default_factory=list)
    figures: Sequence[Figure] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    text: str
    parts: Sequence[Part]


HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1280px; padding: 0 1rem; color: #1c1c22 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccd; padding-bottom: .2rem }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid #e4e4ec; vertical-align: top }
th { font-weight: 600; border-bottom: 2px solid #bbc } .note, figcaption { color: #556; font-size: 13px }
figure { margin: 1rem 0 } img { max-width: 100%; display: block }
.marked { border-left: 5px solid #d33; padding-left: 8px }
nav a { margin-right: 1rem }
</style></head><body>
<h1>{{ page.title }}</h1><p>{{ page.text }}</p>
<nav>{% for part in page.parts %}<a href="#p{{ loop.index }}">{{ part.title }}</a> {% endfor %}</nav>
{% for part in page.parts %}<section id="p{{ loop.index }}"><h2>{{ part.title }}</h2>
{% if part.text %}<p>{{ part.text }}</p>{% endif %}
{% for table in part.tables %}<table><tr>{% for cell in table.header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% if table.note %}<p class="note">{{ table.note }}</p>{% endif %}
{% endfor %}{% for figure in part.figures %}<figure{% if figure.marked %} class="marked"{% endif %}>
<figcaption>{{ figure.caption }}</figcaption>
<img loading="lazy" src="{{ figure.file }}" alt="{{ figure.caption }}"></figure>
{% endfor %}</section>
{% endfor %}</body></html>
"""


def write_page(page: Page, out: Path) -> None:
    """Write index.html and report.md into `out`; the pictures they name lie beside them."""
    html = Environment(autoescape=True, trim_blocks=True, keep_trailing_newline=True).from_string(HTML)
    (out / HTML_NAME).write_text(html.render(page=page), encoding="utf-8")
    (out / MARKDOWN_NAME).write_text(markdown(page), encoding="utf-8")


def markdown(page: Page) -> str:
    """The page as Markdown: blocks with an empty line between them."""
    blocks = [f"# {page.title}", page.text]
    for part in page.parts:
        blocks += [f"## {part.title}", part.text]
        for table in part.tables:
            rows = [table.header, ["---"] * len(table.header), *table.rows]
            blocks += ["\n".join("| " + " | ".join(row) + " |" for row in rows), table.note]
        blocks += [f"![{figure.caption}]({figure.file})" for figure in part.figures]
    return "\n\n".join(block for block in blocks if block) + "\n"
