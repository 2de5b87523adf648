"""The page of a report: template, style, script and data in one file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from hf_attn_mi.results.corpus_panel import corpus_panels, panel_id
from hf_attn_mi.results.document import hex_color, html_environment
from hf_attn_mi.results.report_data import page_data
from hf_attn_mi.results.words import LEVELS, Rgb, text_color

if TYPE_CHECKING:
    from hf_attn_mi.results.corpus_summary import CorpusSummary
    from hf_attn_mi.results.report import Report

# Zero and full color in the light and the dark theme.
_WEIGHTS: tuple[tuple[Rgb, Rgb], tuple[Rgb, Rgb]] = (((255, 255, 255), (75, 42, 134)), ((27, 28, 32), (182, 156, 242)))
FRAME_HEIGHT = 860  # CSS pixels of the report in a notebook


def report_page(report: Report) -> str:
    """Return the self-contained page of a report. Without inputs it has no script."""
    corpora = [one.corpus for one in (report, report.second) if one is not None and one.corpus is not None]
    if not report.items:
        return _page(report._title(), corpora)
    return _page(report._title(), corpora, [item.sentence for item in report.items[:20]], page_data(report))


def corpus_page(summary: CorpusSummary) -> str:
    """Return the self-contained page of a summary alone; it has no script."""
    return _page(summary._title(), [summary])


def _page(title: str, corpora: Sequence[CorpusSummary], sentences: Sequence[str] = (), data: object = None) -> str:
    from markupsafe import Markup

    environment = html_environment()
    style = environment.get_template("report.css.j2").render(weights=_weight_colors)
    script = "" if data is None else _script()
    panels = [corpus_panels(one, alone=data is None, number=number) for number, one in enumerate(corpora, 1)]
    return environment.get_template("report.html.j2").render(
        title=title,
        sentences=sentences,
        corpora=[(panel_id(number), one.heading) for number, one in enumerate(corpora, 1)],
        corpus=Markup("").join(panels),
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data="" if data is None else Markup(escape_json(data)),
    )


def report_frame(report: Report) -> str:
    """Return the page inside a frame of its own, for a notebook: its style and script touch nothing outside."""
    return (
        f'<iframe title="{escape(report._title())}" srcdoc="{escape(report_page(report))}" '
        'sandbox="allow-scripts allow-downloads allow-popups" '
        f'style="width:100%;height:{FRAME_HEIGHT}px;border:0"></iframe>'
    )


def escape_json(data: object) -> str:
    """Return strict JSON that is safe inside a script element: plain ASCII without <, > and &.

    Example:
        >>> print(escape_json("</script>"))
        "\\u003c/script\\u003e"
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _weight_colors(dark: bool) -> list[tuple[str, str, str]]:
    """CSS class, background and text color of the weights of methods that know no class: neither blue nor orange."""
    zero, full = _WEIGHTS[dark]
    levels = []
    for level in range(1, LEVELS + 1):
        red, green, blue = (round(a + (b - a) * level / LEVELS) for a, b in zip(zero, full))
        levels.append((f"q{level}", hex_color((red, green, blue)), hex_color(text_color((red, green, blue)))))
    return levels


@cache
def _script() -> str:
    return (files("hf_attn_mi.results") / "templates" / "report.js").read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """The content security policy: no external resources, and only these two inline parts, by their hashes."""
    scripts = _hash(script) if script else "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src {_hash(style)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
