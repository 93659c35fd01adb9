"""What a checkout holds: names, places, hashes of code, and scripts that are loaded."""

import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path

import pytest

import theorylab
from theorylab.verify import checkout
from theorylab.verify.panels import STYLE

SCRIPT = '''"""A title. And more.

Not the title."""
from theorylab.verify import compare, note, paper, theory

adam = paper("kingma2014-adam", "Adam.")


@adam.ours("why", serves="a")
@note(no_space="a number", no_break="a number")
def later(n=1):
    """Two."""
    return compare(2, "==", theory("two", 2))


@adam.ours("why", serves="a")
@note(no_space="a number", no_break="a number")
def earlier(n=1):
    """One."""
    return compare(1, "==", theory("one", 1))


again = later
'''


@pytest.fixture
def root(tmp_path):
    for name in ("b/second", "b/_helper", "a/first", "a/deep/third"):
        path = tmp_path / "experiments" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SCRIPT)
    (tmp_path / "experiments" / "top.py").write_text(SCRIPT)
    return tmp_path


def test_experiments_are_found_by_their_folder(root):
    found = [str(p.relative_to(root / "experiments")) for p in checkout.discover(root)]
    assert found == ["a/first.py", "b/second.py"]
    assert checkout.find_root(root / "experiments" / "a" / "deep") == root
    assert checkout.find_root(root) == root
    # The nearest one, and the folder itself where there is none.
    inner = root / "experiments" / "a" / "deep"
    (inner / "experiments").mkdir()
    assert checkout.find_root(inner) == inner
    assert checkout.find_root(root.parent) == root.parent


def test_a_name_is_the_place_in_the_checkout_or_a_hash_of_the_path(root):
    experiments = root / "experiments"
    assert checkout.name_of(experiments / "a" / "first.py") == "a/first"
    elsewhere = [
        checkout.name_of(p)
        for p in (experiments / "top.py", experiments / "a/deep/third.py", root / "third.py")
    ]
    assert len(set(elsewhere)) == 3
    digest = hashlib.sha256(str(root / "third.py").encode()).hexdigest()
    assert elsewhere[2] == f"elsewhere/third-{digest[:8]}"
    assert all(name.startswith("elsewhere/") for name in elsewhere)


def test_a_script_is_loaded_with_its_claims_in_order(root):
    path = root / "experiments" / "a" / "first.py"
    loaded = checkout.load(path)
    assert (loaded.name, loaded.title, loaded.path) == ("a/first", "A title. And more", path)
    assert [claim.slug for claim in loaded.claims] == ["later", "earlier"]
    # Another script of the same stem is another module.
    assert checkout.load(root / "experiments" / "b" / "second.py").claims != loaded.claims
    assert "theorylab_experiment_a_first" in sys.modules
    path.write_text(SCRIPT.replace('"""A title. And more.\n\nNot the title."""', ""))
    assert checkout.load(path).title == "a/first"
    path.write_text(SCRIPT.replace("def later", "def earlier"))
    with pytest.raises(ValueError, match=r"distinct names in a/first, got \['earlier'\] twice"):
        checkout.load(path)
    path.write_text("def _():\n    pass\n\n\ndef _():\n    pass\n")
    assert checkout.load(path).claims == ()
    with pytest.raises(ValueError, match="path: expected a Python script"):
        checkout.load(root / "data.json")


def test_the_versions_are_those_that_are_installed():
    found = checkout.versions()
    assert found["python"] == platform.python_version()
    assert {"theorylab", "numpy", "scipy", "cvxpy", "clarabel", "numba"} < set(found)
    for package in set(found) - {"python"}:
        assert found[package] == importlib.metadata.version(package)


def test_a_hash_knows_code_and_not_its_layout(tmp_path):
    path = tmp_path / "a.py"
    digests = []
    for text in ("x = 1\n", "# why\nx   =  1\n", "x = 2\n"):
        path.write_text(text)
        digests.append(checkout.code_hash(path))
    assert digests[0] == digests[1] != digests[2]
    assert all(len(d) == 16 for d in digests)
    assert checkout.same_code(path, digests[2])
    assert not checkout.same_code(path, digests[0])
    assert not checkout.same_code(tmp_path / "missing.py", digests[2])
    style = tmp_path / "a.mplstyle"
    style.write_bytes(b"x = 1\n")
    other = checkout.code_hash(style)
    assert other == hashlib.sha256(b"x = 1\n").hexdigest()[:16]
    style.write_bytes(b"# why\nx = 1\n")
    assert checkout.code_hash(style) != other


def test_what_is_loaded_is_named_by_its_place_and_the_machinery_is_not(root):
    script = root / "experiments" / "a" / "first.py"
    found = checkout.loaded(script, root)
    assert found["experiments/a/first.py"] == checkout.code_hash(script)
    style = f"theorylab/verify/{STYLE.name}"
    assert found[style] == checkout.code_hash(STYLE)
    assert {"theorylab/verify/kernel.py", "theorylab/_validation.py"} < set(found)
    apart = {f"theorylab/verify/{name}.py" for name in checkout.APART}
    assert not apart & set(found)
    assert all((checkout.PACKAGE / "verify" / f"{name}.py").is_file() for name in checkout.APART)
    for name, digest in found.items():
        assert checkout.same_code(checkout.place(name, root), digest)
    # A script of another place has no path.
    stranger = root.parent / f"{root.name}-stranger.py"
    stranger.write_text("")
    assert stranger.name in checkout.loaded(stranger, root)


def test_a_record_is_stale_once_a_file_of_it_has_changed(root):
    script = root / "experiments" / "a" / "first.py"
    record, figure = checkout.outputs(root, "a/first", "full", 0)
    assert (record, figure) == (root / "figures/a/first.json", root / "figures/a/first.png")
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"code": checkout.loaded(script, root)}))
    assert checkout.stale(root, "a/first") == []
    script.write_text(SCRIPT + "x = 1\n")
    assert checkout.stale(root, "a/first") == ["experiments/a/first.py"]
    script.unlink()
    assert checkout.stale(root, "a/first") == ["experiments/a/first.py"]


def test_only_full_cases_at_seed_zero_of_the_checkout_are_committed(root):
    for name, preset, seed in (("a/b", "quick", 0), ("a/b", "full", 1), ("elsewhere/b", "full", 0)):
        record, figure = checkout.outputs(root, name, preset, seed)
        assert record == root / ".theorylab" / f"{preset}-{seed}" / f"{name}.json"
        assert figure == record.with_suffix(".png")
    package = Path(theorylab.__file__).parent
    assert checkout.place("theorylab/_validation.py", root) == package / "_validation.py"
    assert checkout.place("experiments/a/first.py", root) == root / "experiments/a/first.py"
