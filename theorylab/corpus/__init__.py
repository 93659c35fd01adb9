"""The papers whose claims the laboratory checks: title, authors, year, arXiv identifier, theme,
class, and the claims to cover.

The class says what a small computation can do with a paper: ``exact`` (it can decide its
statements), ``mechanism`` (it can show the mechanism in a model of it), ``empirical`` (its claims
are measurements on large systems), ``outside`` (nothing to compute)."""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["THEMES", "Paper", "paper", "papers"]

THEMES = (
    "convex_relu",
    "matrix_sensing",
    "neural_collapse",
    "implicit_regularization",
    "random_features",
    "optimal_transport",
    "optimization",
    "training_dynamics",
    "attention",
    "robustness",
    "generalization",
    "statistics",
    "diffusion",
    "architectures",
    "other",
)


@dataclass(frozen=True)
class Paper:
    """One paper of the corpus.

    Attributes
    ----------
    key
        Short name by which claims cite it.
    title, authors, year, arxiv
        Bibliography; ``arxiv`` is None where there is no identifier, ``authors`` and ``year`` where
        only the title is known.
    theme
        One of :data:`THEMES`.
    kind
        Its class: exact, mechanism, empirical or outside.
    why
        Why it has that class.
    claims
        Slugs of the claims that a check should cover.
    """

    key: str
    title: str
    authors: str | None
    year: int | None
    arxiv: str | None
    theme: str
    kind: str
    why: str
    claims: tuple[str, ...]

    @property
    def bibtex(self) -> str:
        """A BibTeX entry."""
        fields = {"title": f"{{{self.title}}}".replace("&", r"\&")}
        if self.authors:
            names = re.sub(r",?\s+et al\.?$", ", others", self.authors)
            fields["author"] = " and ".join(
                name.strip() for name in names.split(",") if name.strip()
            )
        if self.year:
            fields["year"] = str(self.year)
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archiveprefix": "arXiv"}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@misc{{{self.key},\n{body}\n}}"


@cache
def papers() -> tuple[Paper, ...]:
    """Return all papers, by theme in the order of :data:`THEMES`, then by key."""
    folder = files("theorylab.corpus")
    return tuple(
        Paper(
            **{k: v for k, v in entry.items() if k not in ("class", "claims")},
            theme=theme,
            kind=entry["class"],
            claims=tuple(entry["claims"]),
        )
        for theme in THEMES
        for entry in json.loads((folder / f"{theme}.json").read_text(encoding="utf-8"))
    )


def paper(key: str) -> Paper:
    """Return the paper with this key.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = next((p for p in papers() if p.key == key), None)
    if found is None:
        raise ValueError(f"key: expected the key of a paper of the corpus, got {key!r}")
    return found
