"""What a visitor reads first is true: its code gives what it says, its tables are fresh."""

import ast
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import theorylab
from theorylab.verify.checkout import discover, load
from theorylab.verify.cli import app
from theorylab.verify.gallery import END, START, reports, with_themes

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/site/index.md")
GIVES = re.compile(r"# gives (.*?)(?:; |$)")


def blocks(page):
    """Yield the Python of a page, without the indentation that tabs and lists need."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for indent, code in re.findall(r"^( *)```python\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        yield "\n".join(line.removeprefix(indent) for line in code.splitlines())


EXAMPLES = [
    pytest.param(code, id=f"{page}-{n}") for page in PAGES for n, code in enumerate(blocks(page))
]


def run(code):
    """Run a block; an expression with "# gives VALUE[; why]" beside it must give this."""
    names = {"__name__": "example"}
    for node in ast.parse(code).body:
        if isinstance(node, ast.Expr):
            value = eval(ast.unparse(node.value), names)
            last = code.splitlines()[node.end_lineno - 1]
            if said := GIVES.search(last):
                assert repr(value) == said[1], last
        else:
            exec(compile(ast.Module([node], []), "example", "exec"), names)
    return names


def properties(names):
    return [f for k, f in names.items() if k.startswith("test_")]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run_and_give_what_they_say(code):
    for test in properties(run(code)):
        test()


def test_examples_are_there():
    assert [len([*blocks(page)]) >= n for page, n in zip(PAGES, (4, 1, 4), strict=True)] == [
        True
    ] * 3


def test_a_false_result_is_noticed():
    with pytest.raises(AssertionError):
        run("1 + 1  # gives 3")
    with pytest.raises(AssertionError):
        run("x = {'a': 1}\nx  # gives {'a': 2}; because")
    run("1 + 1  # gives 2; as sums do\n2 + 2  # four")


# ------------------------------------------------------------------------------- what is made
@pytest.fixture(scope="module")
def experiments():
    return [load(path) for path in discover(ROOT)]


def test_index_gallery_and_table_are_fresh(experiments):
    for file, text in reports(ROOT, experiments).items():
        assert (ROOT / file).read_text(encoding="utf-8") == text, f"{file}: run theorylab report"


def test_the_table_counts_what_there_is(experiments):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (?:\[?(?:[^|]*?)) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.M
    )
    *themes, total = [list(map(int, row)) for row in rows]
    assert [sum(column) for column in zip(*themes, strict=True)] == total
    claims = [claim for e in experiments for claim in e.claims]
    assert total[1] == len(claims)
    assert total[3] == sum(c.refuted for c in claims)
    assert total[4] == len(list((ROOT / "figures").glob("*/*.png")))


def test_a_stale_table_is_noticed(experiments):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    changed = re.sub(r"\| (\d+) \|$", lambda m: f"| {int(m[1]) + 1} |", text, count=1, flags=re.M)
    assert changed != text
    assert with_themes(changed, ROOT, experiments) == text


@pytest.mark.parametrize("text", ["", END, START, END + START, START + END + END, 2 * START + END])
def test_a_readme_without_its_marks_is_refused(text):
    with pytest.raises(ValueError, match=r"^text: expected one table"):
        with_themes(text, ROOT, [])


def test_gallery_shows_every_figure_and_claim_and_leads_to_files(experiments):
    pages = {f: t for f, t in reports(ROOT, experiments).items() if f.startswith("figures/")}
    for experiment in experiments:
        theme, module = experiment.name.split("/")
        text = pages[f"figures/{theme}/README.md"]
        assert f'src="{experiment.name}.png"' in pages["figures/README.md"]
        assert f'<a id="{module}"></a>' in text
        assert all(f"[`{c.slug}`](" in text for c in experiment.claims)
    for file, text in [*pages.items(), ("README.md", (ROOT / "README.md").read_text())]:
        for target in re.findall(r"\]\(([^)#]+)", text) + re.findall(r'src="([^"]+)"', text):
            assert (ROOT / file).parent.joinpath(target).resolve().exists(), (file, target)


# --------------------------------------------------------------------------------- facts
def test_commands_name_what_there_is(experiments):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ theorylab (\w+) ?(\S*)", text, re.MULTILINE)
    known = {e.name for e in experiments}
    known |= {f"{e.name}:{claim.slug}" for e in experiments for claim in e.claims}
    assert {command for command, _ in commands} == {
        callback.name or callback.callback.__name__ for callback in app.registered_commands
    }
    for command, name in commands:
        assert command == "new" or "/" not in name or name in known, name
    (words,) = re.findall(r'^\$ theorylab find "(.*?)"', text, re.MULTILINE)
    assert CliRunner().invoke(app, ["find", words]).exit_code == 0
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {*re.findall(r"\bmake ([\w-]+)`", text)} <= {*targets}


def test_the_citation_is_that_of_the_package():
    facts = dict(re.findall(r'^(\w+): "?(.*?)"?$', (ROOT / "CITATION.cff").read_text(), re.M))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    given = dict(re.findall(r"^  (\w+) = \{+(.*?)\}+,$", text, re.M))
    assert given["title"] == facts["title"]
    assert given["version"] == facts["version"] == theorylab.__version__
    assert f'name: "{given["author"]}"' in (ROOT / "CITATION.cff").read_text()


def test_the_picture_is_small():
    path = ROOT / "docs" / "picture.png"
    assert path.stat().st_size < 150_000
    with Image.open(path) as picture:
        assert picture.mode == "P"
