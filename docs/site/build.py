"""Write the sources of the site from the checkout, and let MkDocs make it: ``make docs``."""

from __future__ import annotations

import shutil
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config

from theorylab.corpus import THEMES
from theorylab.verify.checkout import discover, load
from theorylab.verify.index import title
from theorylab.verify.site import site_pages

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / ".theorylab" / "site-source"


def write_sources() -> list[dict[str, object]]:
    """Write all pages; return the navigation."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    pages = site_pages(ROOT, [load(path) for path in discover(ROOT)])
    for name, text in pages.items():
        (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
        (SOURCE / name).write_text(text, encoding="utf-8")
    for folder in ("figures", "notebooks"):
        kept = shutil.ignore_patterns("*.json", "*.md", ".*")
        shutil.copytree(ROOT / folder, SOURCE / folder, ignore=kept)
    for name in ("site.css", "site.js", "file-worker.js"):
        shutil.copy(ROOT / "docs" / "site" / name, SOURCE / name)
    for name in ("index.md", "larger-machines.md"):
        shutil.copy(ROOT / "docs" / "site" / name, SOURCE / name)
    shutil.copy(ROOT / "docs" / "picture.png", SOURCE / "picture.png")
    shutil.copy(ROOT / "CONTRIBUTING.md", SOURCE / "contributing.md")
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    reference = [n for n in pages if n.startswith("reference/")]
    return [
        {"Start here": "index.md"},
        {"Gallery": "gallery.md"},
        {"Claims": [{"All claims": "claims/index.md"}, {"Corrections": "corrections.md"}]},
        {"Themes": [{title(t): f"themes/{t}.md"} for t in THEMES]},
        {"Notebooks": [{title(p.stem): f"notebooks/{p.name}"} for p in notebooks]},
        {"Reference": [{title(Path(n).stem): n} for n in reference]},
        {"Larger machines": "larger-machines.md"},
        {"Add a claim": "contributing.md"},
    ]


def main() -> None:
    nav = write_sources()
    config = load_config(str(ROOT / "docs" / "mkdocs.yml"), nav=nav)
    build(config)
    print(f"open {Path(config.site_dir).resolve() / 'index.html'}")


if __name__ == "__main__":
    main()
