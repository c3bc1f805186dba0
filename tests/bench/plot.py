"""Bars from minimum to maximum with the median marked, as SVG; no library, and legible on light and dark."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _NAMES, _NUMBERS = 860, 330, 110
_LINE, _TITLE, _GAP = 24, 34, 16
_OURS, _OTHERS = "#2f7ed8", "#9aa4ae"

_STYLE = """<style>
text{font:13px sans-serif;fill:#333}.title{font-weight:bold}.number{text-anchor:end}
@media (prefers-color-scheme:dark){text{fill:#ddd}}
</style>"""


def draw(charts: list[dict[str, Any]]) -> str:
    """Return one SVG with a chart below the other; each has its own scale, from nought."""
    parts: list[str] = []
    top = 0
    for chart in charts:
        top = _chart(parts, chart, top + _GAP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + _GAP}">'
    return "\n".join([head, _STYLE, *parts, "</svg>", ""])


def _chart(parts: list[str], chart: dict[str, Any], top: int) -> int:
    room = _WIDTH - _NAMES - _NUMBERS
    scale = room / max(line["max"] for line in chart["lines"])
    title = f"{chart['title']} ({chart['unit']}, {chart['better']} is better)"
    parts.append(f'<text class="title" x="0" y="{top + 18}">{escape(title)}</text>')
    top += _TITLE
    for line in chart["lines"]:
        colour = _OURS if line["ours"] else _OTHERS
        left, median, right = (_NAMES + line[key] * scale for key in ("min", "median", "max"))
        middle = top + _LINE / 2
        parts += [
            f'<text x="0" y="{middle + 5}">{escape(line["name"])}</text>',
            f'<rect x="{_NAMES}" y="{top + 4}" width="{median - _NAMES:.1f}" height="{_LINE - 8}" fill="{colour}"/>',
            f'<path d="M{left:.1f} {middle}H{right:.1f}M{left:.1f} {middle - 4}v8M{right:.1f} {middle - 4}v8" '
            'stroke="#d0661b" fill="none"/>',
            f'<text class="number" x="{_WIDTH}" y="{middle + 5}">{line["median"]:,g}</text>',
        ]
        top += _LINE
    return top
