"""MkDocs hooks: formulas become MathML, which browsers draw without scripts or fonts of others, and
the one remote script, which lets search work from a folder, is replaced by ours."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

ROLE = re.compile(r":(?:func|class|mod|meth|data|attr):\s*<code>~?")
DOUBLE = str.maketrans("CENPQRSZ", "ℂ𝔼ℕℙℚℝ𝕊ℤ")
LETTER = re.compile(r'<mi mathvariant="double-struck">(.)</mi>')
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# Cells of notebooks come with their formulas as they were typed.
CELL = re.compile(r'jp-MarkdownOutput"[^>]*>(.*?)</div>', re.DOTALL)
TYPED = re.compile(r"<code>.*?</code>|(\${1,2})([^$]+)\1", re.DOTALL)
REMOTE = re.compile(r'<script src="https://unpkg\.com/iframe-worker/shim"></script>')


def on_page_content(content: str, **_: Any) -> str:
    drawn = FORMULA.sub(lambda m: _mathml(m[3], block=m[2] == "["), content)
    drawn = CELL.sub(lambda m: TYPED.sub(_typed, m[0]), ROLE.sub("<code>", drawn))
    return drawn.replace("<img ", '<img loading="lazy" ')


def on_post_page(output: str, page: Any, **_: Any) -> str:
    place = "../" * page.url.count("/") + "file-worker.js"
    return REMOTE.sub(f'<script src="{place}"></script>', output)


def on_post_template(output: str, **_: Any) -> str:
    return REMOTE.sub('<script src="file-worker.js"></script>', output)


def _typed(found: re.Match[str]) -> str:
    return _mathml(found[2], block=found[1] == "$$") if found[1] else found[0]


def _mathml(formula: str, *, block: bool) -> str:
    try:
        drawn = convert(html.unescape(formula), display="block" if block else "inline")
    except Exception:  # what it cannot read stands as it was written
        return f"<code>{formula}</code>"
    # Browsers no longer know this variant of letters.
    drawn = LETTER.sub(lambda m: f"<mi>{m[1].translate(DOUBLE)}</mi>", drawn)
    return f'<span class="wide">{drawn}</span>' if block else drawn
