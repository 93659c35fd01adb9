import re

from theorylab.corpus import paper, papers


def test_every_paper_has_a_bibtex_entry_of_what_is_known():
    for p in papers():
        assert p.bibtex.startswith(f"@misc{{{p.key},")
        assert "None" not in p.bibtex
        assert not re.search(r"(?<!\\)[&%#_$]", p.bibtex.split("title = ")[1].splitlines()[0])


def test_authors_are_joined_as_bibtex_asks():
    assert (
        "author = {Alireza Aghasi and Afshin Abdi and Justin Romberg}"
        in paper("aghasi2018-fast").bibtex
    )
    assert "author = {Yuxuan Zhou and others}" in paper("zhou2025-maxsup").bibtex
