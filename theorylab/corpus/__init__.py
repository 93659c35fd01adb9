"""The papers whose claims the laboratory checks: title, authors, year, arXiv identifier, theme,
class, and what their abstracts assert.

The class says what a small computation can do with a paper: ``exact`` (it can decide its
statements), ``mechanism`` (it can show the mechanism in a model of it), ``empirical`` (its claims
are measurements on large systems), ``outside`` (nothing to compute).

The theoretical assertions of an abstract are lettered, in our words. One that is no theorem there
says so: "mechanism: ...", "(premise)", "(definition)", "(heuristic)", "(empirical)". Papers without
such assertions have none."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from theorylab._validation import as_text

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
    finished
        Whether every assertion has a claim or a reason.
    assertions
        Each theoretical assertion of the abstract by its letter, one line each; read-only.
    out_of_reach
        Why no small computation decides an assertion, by its letter; read-only. Claims may still
        serve a part of it.

    Examples
    --------
    >>> paper("bai2022-efficient").assertions["f"]
    'On the sampled program one ADMM iteration costs quadratic time.'
    >>> paper("bai2022-efficient").out_of_reach
    mappingproxy({'i': 'a statement of outlook, no theorem in the abstract'})
    """

    key: str
    title: str
    authors: str | None
    year: int | None
    arxiv: str | None
    theme: str
    kind: str
    why: str
    finished: bool
    assertions: Mapping[str, str] = field(hash=False)
    out_of_reach: Mapping[str, str] = field(hash=False)

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


# Fields of an entry that are not taken as they stand.
CONVERTED = ("class", "assertions", "out_of_reach")


@cache
def papers() -> tuple[Paper, ...]:
    """Return all papers, by theme in the order of :data:`THEMES`, then by key.

    Examples
    --------
    >>> from theorylab.corpus import papers
    >>> len(papers())
    445
    """
    folder = files("theorylab.corpus")
    return tuple(
        Paper(
            **{k: v for k, v in entry.items() if k not in CONVERTED},
            theme=theme,
            kind=entry["class"],
            assertions=MappingProxyType(entry["assertions"]),
            out_of_reach=MappingProxyType(entry["out_of_reach"]),
        )
        for theme in THEMES
        for entry in json.loads((folder / f"{theme}.json").read_text(encoding="utf-8"))
    )


def paper(key: str) -> Paper:
    """Return the paper with this key.

    Raises
    ------
    ValueError
        If there is none; the message names the key most like it.

    Examples
    --------
    >>> from theorylab.corpus import paper
    >>> paper("xiong2023-over").theme
    'matrix_sensing'
    """
    as_text(key, "key")
    found = next((p for p in papers() if p.key == key), None)
    if found is None:
        close = get_close_matches(key, [p.key for p in papers()], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"key: expected the key of a paper of the corpus, got {key!r}{hint}")
    return found
