"""The site: every claim and paper has a page, links lead somewhere, and a browser can use it."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from theorylab.corpus import papers
from theorylab.verify.applicability import checkable_theorems
from theorylab.verify.checkout import discover, load
from theorylab.verify.index import committed
from theorylab.verify.site import site_pages

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SCRIPT = re.compile(r"<(script|style|pre)\b.*?</\1>", re.DOTALL)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def experiments():
    return [load(path) for path in discover(ROOT)]


@pytest.fixture(scope="module")
def pages(experiments):
    return site_pages(ROOT, experiments)


def test_every_claim_and_paper_has_a_page(pages, experiments):
    for experiment in experiments:
        for claim in experiment.claims:
            text = pages[f"claims/{experiment.name}/{claim.slug}.md"]
            assert claim.statement in text
            assert f"theorylab run {experiment.name}:{claim.slug} --full" in text
            assert "```bibtex" in text
            for source in claim.sources:
                assert f"papers/{source.key}.md" in text
    for item in papers():
        text = pages[f"papers/{item.key}.md"]
        assert all(words.rstrip(".") in text for words in item.assertions.values())


def test_links_inside_lead_to_pages_or_files(pages):
    for name, text in pages.items():
        # What stands in fences and formulas is no link.
        prose = re.sub(r"```.*?```|\$[^$]*\$", "", text, flags=re.DOTALL)
        for target in LINK.findall(prose):
            if target.startswith("http"):
                continue
            path = str(((Path("/") / name).parent / target).resolve().relative_to("/"))
            assert path in pages or (ROOT / path).is_file(), (name, target)


def test_functions_that_a_claim_calls_lead_to_the_reference(pages):
    anchors = {
        f"{name}#{anchor}"
        for name, text in pages.items()
        for anchor in re.findall(r'<a id="([^"]+)">', text)
    }
    called = {
        link
        for name, text in pages.items()
        if name.startswith("claims/")
        for link in re.findall(r"\]\([./]*(reference/[^)]+)\)", text)
    }
    assert len(called) > 300
    assert called <= anchors


def test_pages_of_the_gallery_lead_to_the_sections_of_themes(pages):
    found = re.findall(r'<img src="([^"]+)"[^>]*>\]\(([^)#]+)#([^)]+)\)', pages["gallery.md"])
    assert len(found) == len(list((ROOT / "figures").glob("*/*.png")))
    for picture, page, anchor in found:
        assert (ROOT / picture).is_file()
        assert f"{{ #{anchor} }}" in pages[page]


def test_pages_say_what_a_check_rejects(pages, experiments):
    text = pages["claims/optimization/adam/adam-step-supremum.md"]
    assert "supremum moved at all" in text
    assert "beta2 = 0.009901," in pages["claims/optimization/adam/adam-regret-theorem-false.md"]
    loose = 0
    for experiment in experiments:
        for record in committed(ROOT, experiment).values():
            for name, factor in record.parts[0].marks.items():
                if record.parts[0].relation != "==" and factor is not None:
                    page = pages[f"claims/{experiment.name}/{record.slug}.md"]
                    assert f"{name} cut by more than {factor:.3g}" in page
                    loose += factor > 1.5
    assert loose > 5


def test_pages_tell_what_can_be_tested_on_data(pages):
    page = pages[
        "claims/implicit_regularization/perceptron_limit/vanishing-loss-needs-large-weights.md"
    ]
    assert "steps=...)` tests:" in page
    assert "- `steps at most 4 / R^2`" in page
    told = {name for name, text in pages.items() if "## Does it apply to your data?" in text}
    claims = {f"claims/{name.replace(':', '/')}.md" for name in checkable_theorems()}
    assert told == claims & pages.keys()


def test_refuted_statements_stand_beside_what_holds(pages, experiments):
    text = pages["corrections.md"]
    every = [claim for experiment in experiments for claim in experiment.claims]
    assert any(claim.refuted for claim in every)
    for claim in every:
        if claim.refuted:
            assert claim.statement in text
            assert claim.notes["refuted_by"] in text
        if "contradicts" in claim.notes:
            assert claim.slug in text


def test_rows_have_the_cells_of_their_head(pages):
    rows = 0
    for name, text in pages.items():
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        for table in re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE):
            cells = [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()]
            assert len(set(cells)) == 1, (name, table)
            rows += len(cells)
    assert rows > 1000


@pytest.fixture(scope="session")
def site():
    pytest.importorskip("mkdocs")
    pytest.importorskip("latex2mathml")
    path = ROOT / "docs" / "site" / "build.py"
    spec = importlib.util.spec_from_file_location("build_site", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()
    return ROOT / ".theorylab" / "site"


@pytest.mark.long
def test_the_site_loads_nothing_from_elsewhere(site):
    remote = re.compile(r"(?:src|<link[^>]*href)=\"https?://[^\"]*")
    for path in site.rglob("*.html"):
        assert not remote.findall(path.read_text(encoding="utf-8")), path
    text = (site / "claims" / "index.html").read_text(encoding="utf-8")
    assert text.count("<math") > 1000
    assert "arithmatex" not in text


@pytest.mark.long
def test_links_of_the_site_lead_to_pages_and_places(site):
    text = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    ids = {path: set(re.findall(r"\bid=\"?([^\"\s>]+)", t)) for path, t in text.items()}
    broken = set()
    for path, t in text.items():
        for link in re.findall(r"(?:href|src)=\"?([^\"\s>]+)", SCRIPT.sub("", t)):
            if re.match(r"\w+:|//", link) or path.name == "404.html":
                continue
            file, _, place = link.partition("#")
            target = (path.parent / unquote(file)).resolve() if file else path
            if not target.is_file() or (place and unquote(place) not in ids.get(target, {place})):
                broken.add((str(path.relative_to(site)), link))
    assert not broken


@pytest.mark.long
def test_formulas_are_drawn_everywhere(site):
    typed = re.compile(r"\$[^$<>\n]*[\\^_][^$<>\n]*\$")
    code = re.compile(r"<(pre|code|script|style|title)\b.*?</\1>", re.DOTALL)
    cell = re.compile(r'jp-MarkdownOutput"[^>]*>.*?</div>', re.DOTALL)
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        if path.parent.name == "notebooks":
            text = " ".join(cell.findall(text))
            assert "<math" in text, path
        assert not typed.findall(code.sub("", text)), path


@pytest.mark.long
def test_a_browser_filters_and_searches_from_the_folder(site, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no browser")

    def dump(address: str, width: int = 1280) -> str:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [
            f"--window-size={width},900",
            "--virtual-time-budget=20000",
            f"--user-data-dir={tmp_path}",
            address,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
        return done.stdout

    filtered = dump(f"{(site / 'claims' / 'index.html').as_uri()}#refuted")
    rows = re.findall(r"<tr( hidden=\"\")?>(.*?)</tr>", filtered, re.DOTALL)
    shown = [text for hidden, text in rows if not hidden and "verdict" in text]
    assert len(shown) > 1
    assert all("verdict refuted" in text for text in shown if "<td" in text)
    found = dump(f"{(site / 'index.html').as_uri()}?q=perceptron")
    results = re.search(r"md-search-result__list.*?</ol>", found, re.DOTALL)
    assert results
    assert "perceptron" in results[0].lower()
    first = unquote(re.search(r'href="([^"?#]+)', results[0])[1])
    followed = (site / "index.html").parent.joinpath(first.removeprefix(site.as_uri() + "/"))
    assert "perceptron" in followed.read_text(encoding="utf-8").lower()
    # On a phone a wide formula is moved by hand; on a laptop it fits.
    page = (site / "claims" / "optimization" / "adam" / "adam-regret-theorem-false.html").as_uri()
    assert ['class="wide"' in dump(page, width) for width in (390, 1280)] == [True, False]
