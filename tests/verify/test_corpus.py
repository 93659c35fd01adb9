import json
import re
from collections import Counter
from importlib.resources import files

import pytest

from theorylab.corpus import THEMES, Paper, paper, papers

LETTERED = [(p.key, letter, text) for p in papers() for letter, text in p.assertions.items()]
REASONS = [(p.key, letter, text) for p in papers() for letter, text in p.out_of_reach.items()]


def bibtex_fields(entry: str) -> tuple[str, dict[str, str]]:
    """Parse a BibTeX entry as BibTeX does: values end at the brace that closes them."""
    head = re.match(r"@misc\{([^,\s{}]+),", entry)
    assert head, entry
    fields, at = {}, head.end()
    while start := re.compile(r"\s*([a-z]+) = \{").match(entry, at):
        depth, end = 1, start.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(entry[end], 0)
            end += 1
        fields[start[1]] = entry[start.end() : end - 1]
        at = end + (entry[end] == ",")
    assert entry[at:] == "\n}", entry
    return head[1], fields


def people(p: Paper) -> list[str]:
    """The authors of a paper, by another route than its BibTeX entry."""
    names = [name.strip() for name in (p.authors or "").split(",")]
    if names[-1].endswith("et al."):
        names[-1:] = [names[-1].removesuffix("et al.").strip(), "others"]
    return [name for name in names if name]


def test_every_paper_has_a_bibtex_entry_of_what_is_known():
    for p in papers():
        key, fields = bibtex_fields(p.bibtex)
        assert key == p.key
        assert fields.pop("title") == "{" + p.title.replace("&", r"\&") + "}"
        assert not re.search(r"(?<!\\)[&%#_$]|None", p.bibtex.split("\n  eprint")[0])
        assert fields.pop("author", "").split(" and ") == (people(p) or [""])
        assert fields.pop("year", None) == (str(p.year) if p.year else None)
        assert fields == ({"eprint": p.arxiv, "archiveprefix": "arXiv"} if p.arxiv else {})


def test_authors_are_joined_as_bibtex_asks():
    assert (
        "author = {Alireza Aghasi and Afshin Abdi and Justin Romberg}"
        in paper("aghasi2018-fast").bibtex
    )
    assert "author = {Yuxuan Zhou and others}" in paper("zhou2025-maxsup").bibtex
    assert "author = {Amin Ghiasi and Hamid Kazemi and others}" in paper("ghiasi2022-plug").bibtex


def test_numbers_of_papers_and_assertions():
    assert len(papers()) == 445
    assert len({key for key, _, _ in LETTERED}) == 297
    assert len(LETTERED) == 871
    assert len(REASONS) == 95
    assert {p.theme for p in papers()} == set(THEMES)
    assert not [p.key for p in papers() if p.theme == "other" and p.assertions]


def test_keys_are_those_of_author_year_and_word():
    keys = [p.key for p in papers()]
    assert len(keys) == len(set(keys))
    for p in papers():
        if p.authors is None:
            assert re.fullmatch(r"anon-[a-z]+(-[a-z])?", p.key)
            continue
        assert re.fullmatch(rf"[a-z]+{p.year}-[a-z0-9]+", p.key)
        ascii_author = p.authors.split(",")[0].lower().translate(str.maketrans("äéöüćğ", "aeoucg"))
        assert re.match("[a-z]+", p.key)[0] in re.sub("[^a-z]", "", ascii_author)


def test_identifiers_are_those_of_arxiv_and_of_one_paper():
    known = [p.arxiv for p in papers() if p.arxiv]
    assert len(known) == len(set(known))
    assert all(re.fullmatch(r"\d{4}\.\d{4,5}", arxiv) for arxiv in known)


def test_assertions_are_lettered_in_order_and_reasons_belong_to_them():
    for p in papers():
        assert list(p.assertions) == [chr(ord("a") + i) for i in range(len(p.assertions))], p.key
        assert len(set(p.assertions.values())) == len(p.assertions), p.key
        assert list(p.out_of_reach) == sorted(set(p.assertions) & set(p.out_of_reach)), p.key


def test_texts_are_one_line_of_plain_words():
    for key, letter, text in LETTERED + REASONS:
        assert text == " ".join(text.split()), (key, letter)
        assert 8 <= len(text) <= 240, (key, letter)
        # no LaTeX, no Markdown, no fragments
        assert not re.search(r"[$\\{}`]|\*.*\*|\.\.\.|_\w\w|None", text), (key, letter)
        assert text.count("(") == text.count(")"), (key, letter)
    for key, letter, text in LETTERED:
        assert re.match(r"mechanism( \([a-z ]+\))?: .*\.$|[a-z']*[A-Z(=].*\.$", text), (key, letter)


def test_assertions_cannot_be_changed():
    p = paper("mishkin2023-optimal")
    for table in (p.assertions, p.out_of_reach):
        with pytest.raises(TypeError):
            table["a"] = "something else"
    assert len({p, paper("mishkin2023-optimal")}) == 1


def test_files_are_in_the_one_form_that_makes_small_differences():
    for theme in THEMES:
        text = (files("theorylab.corpus") / f"{theme}.json").read_text(encoding="utf-8")
        entries = json.loads(text)
        assert text == json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
        assert [e["key"] for e in entries] == sorted(e["key"] for e in entries)
        assert Counter(map(tuple, entries)) == {
            (
                *("key", "title", "authors", "year", "arxiv", "class", "why"),
                *("finished", "assertions", "out_of_reach"),
            ): len(entries)
        }


def test_a_key_that_is_misspelt_is_answered_with_the_closest():
    with pytest.raises(ValueError, match="got 'mishkin2023-optmal'; did you mean 'mishkin2023-opt"):
        paper("mishkin2023-optmal")
    with pytest.raises(ValueError, match=r"got 'qqq'$"):
        paper("qqq")
