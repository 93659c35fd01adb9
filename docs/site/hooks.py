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
REMOTE = re.compile(r'<script src="https://unpkg\.com/iframe-worker/shim"></script>')


def on_page_content(content: str, **_: Any) -> str:
    drawn = ROLE.sub("<code>", FORMULA.sub(_mathml, content))
    return drawn.replace("<img ", '<img loading="lazy" ')


def on_post_page(output: str, page: Any, **_: Any) -> str:
    place = "../" * page.url.count("/") + "file-worker.js"
    return REMOTE.sub(f'<script src="{place}"></script>', output)


def on_post_template(output: str, **_: Any) -> str:
    return REMOTE.sub('<script src="file-worker.js"></script>', output)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[2] == "[" else "inline"
    try:
        drawn = convert(html.unescape(found[3]), display=display)
    except Exception:  # what it cannot read stands as it was written
        return f"<code>{found[3]}</code>"
    # Browsers no longer know this variant of letters.
    return LETTER.sub(lambda m: f"<mi>{m[1].translate(DOUBLE)}</mi>", drawn)
