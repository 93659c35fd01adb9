"""The command ``theorylab``: list, find, show, run, falsify, report, new."""

import difflib
import json
import math
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import theorylab
from theorylab.verify.checkout import (
    Experiment,
    discover,
    find_root,
    load,
    name_of,
    outputs,
    versions,
)
from theorylab.verify.claims import Claim, Preset
from theorylab.verify.records import PartRecord, Record, declared
from theorylab.verify.runner import Outcome, run

__all__ = ["app", "main", "run_script"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A numerical laboratory for machine-learning theory: judge claims, draw and attack them.",
)
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

COLOUR = {"verified": "green", "refuted": "magenta", "open": "yellow", "failed": "bold red"}

ROOMS = ((1.01, "1 %"), (1.1, "10 %"), (10.0, "10x"))

Json = Annotated[bool, typer.Option("--json", help="Print plain data.")]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"theorylab {theorylab.__version__}", markup=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop.")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_claims(
    theme: Annotated[str, typer.Option(help="Only this theme.")] = "",
    paper: Annotated[str, typer.Option(help="Only the paper with this key.")] = "",
    as_json: Json = False,
) -> None:
    """List the claims with origin, grade and committed verdict; a paper with its assertions."""
    from theorylab.corpus import THEMES
    from theorylab.corpus import paper as find_paper

    root = _checkout()
    if theme and theme not in THEMES:
        _fail(f"no such theme: {theme}{_suggestion(theme, THEMES)}")
    try:
        wanted = find_paper(paper) if paper else None
    except ValueError as error:
        _fail(str(error))
    chosen = [
        record
        for experiment in _load_all(root, theme)
        for record in _records(root, experiment)
        if wanted is None or wanted.key in record.serves
    ]
    if as_json:
        _print_json({"claims": [r.to_json() for r in chosen], "versions": versions()})
    elif wanted is not None:
        from theorylab.verify.index import assertion_lines, serving

        out.print(f"{wanted.title} ({wanted.key})", markup=False)
        served = serving(root, _load_all(root)).get(wanted.key, [])
        for line in assertion_lines(wanted, served, _full_name):
            out.print(line.replace("**", ""), markup=False)
    else:
        _table(chosen)


@app.command("find")
def find(words: Annotated[list[str], typer.Argument(metavar="WORDS")]) -> None:
    """Search statements, sources and slugs for claims that have all the words."""
    root = _checkout()
    found = []
    for experiment in _load_all(root):
        for record in _records(root, experiment):
            text = " ".join([record.claim, record.statement, *record.sources]).lower()
            if all(word in text for word in " ".join(words).lower().split()):
                found.append(record)
    if not found:
        _fail(f"no claim has all of: {' '.join(words)}", code=1)
    _table(found)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="theme/module:slug or theme/module.")],
) -> None:
    """Show a claim: statement, hypotheses, source, parts, controls, figure."""
    from theorylab.corpus import paper, papers
    from theorylab.verify.applicability import theorems_of

    root = _checkout()
    keys = {p.key for p in papers()}
    for experiment, claims in _select(root, [name]):
        slugs = {c.slug for c in claims}
        for record in _records(root, experiment):
            if record.slug not in slugs:
                continue
            out.rule(record.claim, align="left")
            out.print(record.statement, markup=False)
            out.print(record.ranges, markup=False)
            for source, (key, letters) in zip(record.sources, record.serves.items(), strict=True):
                out.print(f"{record.origin}: {source}", markup=False)
                for letter in letters:
                    text = paper(key).assertions.get(letter, "") if key in keys else ""
                    out.print(f"  serves {letter}: {text}", markup=False)
                out.print(
                    paper(key).bibtex if key in keys else f"{key}: not in the corpus", markup=False
                )
            _show_record(record)
            if stated := theorems_of(record.claim.split("/")[0]).get(record.claim):
                data, names = ", ".join(stated.data), "; ".join(stated.assumptions)
                out.print(f"theorylab.verify.applies tests on {data}: {names}", markup=False)
            figure = outputs(root, experiment.name, "full", 0)[1]
            out.print(f"figure: {figure.relative_to(root)}", markup=False)


@app.command("run")
def run_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME|FILE.py]...", help="All by default.")
    ] = None,
    full: Annotated[bool, typer.Option("--full/--quick", help="Which cases.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Judge on this seed.")] = 0,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Judge on seeds 0 to N-1 instead.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds a claim; 0: no limit.")] = 0.0,
    save: Annotated[str, typer.Option(metavar="pdf,npz", help="Write these too.")] = "",
    backend: Annotated[str, typer.Option(help="local, or dask for a cluster.")] = "local",
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Of the scheduler of the cluster.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Judge claims and run their controls, draw their figures if --full; exit 1 if one fails."""
    preset: Preset = "full" if full else "quick"
    if seed and seeds:
        _fail("expected --seed or --seeds, got both")
    also = [word for word in save.split(",") if word]
    if odd := {*also} - {"pdf", "npz"}:
        _fail(f"expected --save pdf, npz or both, got {', '.join(sorted(odd))}")
    if also and not full:
        _fail("expected --full with --save: figures are drawn of the full cases")
    _check_backend(backend, scheduler, jobs)
    wanted = names or []
    files = [Path(n) for n in wanted if n.endswith(".py")]
    missing = next((f for f in files if not f.is_file()), None)
    if missing is not None:
        _fail(f"no such script: {missing}")
    chosen_seeds = list(range(seeds)) if seeds else [seed]
    whole: list[Path] = list(files)
    single: dict[Path, list[str]] = {}
    if len(files) < len(wanted) or not wanted:
        for path, slug in _resolve_names(_checkout(), [n for n in wanted if not n.endswith(".py")]):
            if slug:
                single.setdefault(path, []).append(slug)
            else:
                whole.append(path)
    if single and also:
        _fail("expected whole modules with --save, got single claims: nothing is drawn of them")
    options: dict[str, Any] = {"preset": preset, "seeds": chosen_seeds, "timeout": timeout}
    options |= {"jobs": jobs, "scheduler": scheduler, "quiet": as_json}
    try:
        outcomes = _run(whole, save=also, **options)
        for path, slugs in single.items():
            outcomes += _run([path], slugs=slugs, **options)
    except ConnectionError as error:
        _fail(str(error))
    if as_json:
        _print_json({"claims": _joined(outcomes, len(chosen_seeds)), "versions": versions()})
    else:
        _summary(outcomes, len(chosen_seeds))
    for outcome in outcomes:
        if outcome.error:
            err.print(f"{outcome.name} stopped:\n{outcome.error}", markup=False)
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(1)


@app.command("falsify")
def falsify_command(
    name: Annotated[str, typer.Argument(metavar="CLAIM", help="theme/module:slug.")],
    budget: Annotated[float, typer.Option(help="Seconds of search.")] = 10.0,
    instances: Annotated[
        int | None, typer.Option(min=1, help="Instances to try, in place of seconds.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    slice_: Annotated[
        str, typer.Option("--map", metavar="X,Y", help="Draw how tight the bound is instead.")
    ] = "",
) -> None:
    """Search a claim's space for a counterexample; print the tightest instance; exit 1 if found."""
    from theorylab.verify.search import falsify

    if not 0 < budget < math.inf:
        _fail(f"expected a positive --budget, got {budget}")
    selected = [c for _, claims in _select(_checkout(), [name]) for c in claims]
    if len(selected) != 1:
        _fail(f"expected one claim, theme/module:slug, got {name} ({len(selected)} claims)")
    claim = selected[0]
    if not claim.space:
        reason = claim.notes.get("no_space", "it is refuted or open")
        _fail(f"{name} declares no space ({reason}): only its cases are judged")
    if slice_:
        _write_map(claim, name, slice_, seed)
        return
    result = falsify(claim, budget=budget, instances=instances, seed=seed)
    counts = f"({result.evaluations} instances, {result.inconclusive} inconclusive)"
    out.print(f"{result.status} {counts}", markup=False)
    at = {**(result.instance or {}), **({"seed": result.seed} if result.seed is not None else {})}
    for key, value in at.items():
        out.print(f"  {key} = {value!r}", markup=False)
    if result.part:
        p = result.part
        sides = f"measured {p.centre} +- {p.error} {p.relation} predicted {p.predicted}"
        out.print(f"  margin {p.margin:.4g}: {sides}", markup=False)
    if result.found:
        raise typer.Exit(1)


def _check_backend(backend: str, scheduler: str, jobs: int) -> None:
    if backend not in ("local", "dask"):
        _fail(f"expected --backend local or dask, got {backend}")
    if (backend == "dask") != bool(scheduler):
        _fail("expected --backend dask together with --scheduler ADDRESS")
    if backend == "dask" and jobs > 1:
        _fail("expected --jobs or --backend dask, got both: a worker judges a script a thread")
    if backend == "dask" and not find_spec("distributed"):
        _fail("--backend dask needs distributed: pip install 'theorylab[dask]'")


def _write_map(claim: Claim, name: str, slice_: str, seed: int) -> None:
    from theorylab.verify.maps import draw_map, tightness_map
    from theorylab.verify.panels import save

    x, _, y = slice_.replace(" ", "").partition(",")
    if not (x and y):
        _fail(f"expected two parameters with --map, as in --map x,y, got {slice_}")
    try:
        found = tightness_map(claim, x, y, seed=seed)
    except (TypeError, ValueError) as error:
        _fail(f"{name}: {error}")
    path = find_root() / ".theorylab" / "maps" / f"{name.replace(':', '/')}-{x}-{y}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(draw_map(found, name), path)
    shares = ", ".join(f"{100 * found.share(f):.0f} % within {w}" for f, w in ROOMS)
    out.print(f"{shares}: {path}", markup=False)


@app.command()
def report() -> None:
    """Write the paper index, the gallery and the README's table from corpus and records."""
    from theorylab.verify.gallery import reports

    root = _checkout()
    try:
        written = reports(root, [load(path) for path in discover(root)])
    except (OSError, ValueError) as error:
        _fail(str(error))
    for file, text in written.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        out.print(f"wrote {file}")


@app.command()
def new(name: Annotated[str, typer.Argument(metavar="THEME/MODULE")]) -> None:
    """Write the files of a new module (mathematics, experiment, tests), ready to fill."""
    from keyword import iskeyword
    from string import Template

    from theorylab.corpus import THEMES, papers

    theme, _, module = name.partition("/")
    if theme not in THEMES:
        _fail(f"expected THEME/MODULE with a theme of {', '.join(THEMES)}, got {name}")
    if not module.isidentifier() or iskeyword(module) or module.startswith("_"):
        _fail(f"expected THEME/MODULE with a public name that Python can import, got {name}")
    root = _checkout()
    package = root / "theorylab" / theme
    targets = {
        "module": package / f"{module}.py",
        "experiment": root / "experiments" / theme / f"{module}.py",
        "test": root / "tests" / theme / f"test_{module}.py",
    }
    existing = next((p for p in targets.values() if p.exists()), None)
    if existing is not None:
        _fail(f"{existing.relative_to(root)} exists already")
    stub = package / "__init__.pyi"
    if stub.exists() and f" as {module}\n" in stub.read_text(encoding="utf-8"):
        _fail(f"theorylab.{theme}.{module} exists already, and a module would hide it")
    if not (package / "__init__.py").exists():
        targets["package"] = package / "__init__.py"
    templates = Path(__file__).with_name("templates")
    words = {
        "theme": theme,
        "module": module,
        "key": next(p.key for p in papers() if p.theme == theme),
    }
    for kind, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / f"{kind}.txt").read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(words), encoding="utf-8")
        out.print(f"wrote {path.relative_to(root)}", markup=False)
    _lend(stub, f"from .{module} import {module} as {module}\n")
    out.print(f"wrote {stub.relative_to(root)}", markup=False)
    if "package" in targets:
        _lend(root / "theorylab" / "__init__.pyi", f"from . import {theme} as {theme}\n")
        out.print("wrote theorylab/__init__.pyi", markup=False)
    out.print(f"next: theorylab run --full {name}, then theorylab report", markup=False)


def _lend(stub: Path, line: str) -> None:
    """Add a line to the sorted imports at the end of a stub."""
    lines = stub.read_text(encoding="utf-8").splitlines(keepends=True) if stub.exists() else []
    lent = {line, *(given for given in lines if given.startswith("from "))}
    head = [given for given in lines if not given.startswith("from ")]
    stub.write_text("".join([*head, *sorted(lent)]), encoding="utf-8")


def run_script(path: str) -> None:
    """Run one experiment as a program, with the options of ``theorylab run``."""
    app(["run", path, *sys.argv[1:]])


def main() -> None:
    """Entry point of the command."""
    app()


# ---------------------------------------------------------------------------------- selection
def _checkout() -> Path:
    root = find_root()
    if not (root / "experiments").is_dir():
        _fail(
            "no experiments here: the installed package carries none; run in a checkout of "
            "theorylab, or give a path to a script"
        )
    return root


def _load_all(root: Path, theme: str = "") -> list[Experiment]:
    """Load the experiments, without those that cannot be imported, which are named."""
    loaded = []
    for path in discover(root):
        if theme and path.parent.name != theme:
            continue
        try:
            loaded.append(load(path))
        except (Exception, SystemExit) as error:
            text = f"{name_of(path)} cannot be loaded: {type(error).__name__}: {error}"
            err.print(text, markup=False)
    return loaded


def _records(root: Path, experiment: Experiment) -> list[Record]:
    """Return the committed records of an experiment; what is declared where there is none."""
    from theorylab.verify.index import committed

    found = committed(root, experiment)
    return [found.get(c.slug, declared(experiment.name, c)) for c in experiment.claims]


def _resolve_names(root: Path, names: Sequence[str]) -> list[tuple[Path, str]]:
    """Return (script, slug or "") for theme, theme/module and theme/module:slug."""
    scripts = discover(root)
    if not names:
        return [(path, "") for path in scripts]
    found = []
    for name in names:
        module, _, slug = name.partition(":")
        whole_theme = ":" not in name
        matching = [
            path
            for path in scripts
            if module == name_of(path) or (module == path.parent.name and whole_theme)
        ]
        if not matching:
            known = {*(name_of(p) for p in scripts), *(p.parent.name for p in scripts)}
            _fail(f"no such theme or module: {module}{_suggestion(module, known)}")
        slugs = [c.slug for c in load(matching[0]).claims] if ":" in name else []
        if ":" in name and slug not in slugs:
            _fail(f"no such claim: {name}{_suggestion(slug, slugs)}")
        found += [(path, slug) for path in matching]
    return list(dict.fromkeys(found))


def _select(root: Path, names: Sequence[str]) -> list[tuple[Experiment, list[Claim]]]:
    selected = []
    for path, slug in _resolve_names(root, names):
        experiment = load(path)
        selected.append((experiment, [c for c in experiment.claims if slug in ("", c.slug)]))
    return selected


def _suggestion(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


# ---------------------------------------------------------------------------------- printing
def _full_name(served: Any) -> str:
    return f"{served.experiment.name}:{served.claim.slug}"


def _run(scripts: list[Path], *, seeds: list[int], quiet: bool, **options: Any) -> list[Outcome]:
    from rich.progress import Progress

    if not scripts:
        return []
    with Progress(console=err, disable=quiet or not err.is_terminal, transient=True) as bar:
        task = bar.add_task("judging", total=len(scripts) * len(seeds))

        def advance(outcome: Outcome) -> None:
            bar.advance(task)
            if not quiet and len(seeds) == 1:
                _print_outcome(outcome)

        return run(scripts, seeds=seeds, progress=advance, **options)


def _print_outcome(outcome: Outcome) -> None:
    state = "unchanged" if outcome.skipped else f"{outcome.seconds:.1f} s"
    out.print(f"[bold]{outcome.name}[/bold] ({state})")
    for record in outcome.records:
        controls = f"{sum(c.decides for c in record.controls)}/{len(record.controls)} controls"
        notes = ", ".join(filter(None, (record.origin, record.grade, _strength(record), controls)))
        out.print(f"  {_coloured(record.verdict)}  {record.slug}  [dim]{escape(notes)}[/dim]")
        for text in (*record.problems, *(f"warning: {w}" for w in record.warnings)):
            out.print(f"      {text}", markup=False)


def _strength(record: Record) -> str:
    """Say what a check of the headline would have rejected."""
    marks = record.parts[0].marks if record.parts else {}
    words = [_mark(record.parts[0], k, v) for k, v in marks.items()]
    return "; ".join(words)


def _mark(part: PartRecord, name: str, value: float | None) -> str:
    if part.relation == "==":
        far = f"by {100 * value:.2g} %" if value else "at all"
        return f"rejects {name} moved {far}" if value is not None else ""
    return f"{name} could be cut by {value:.3g}" if value is not None else f"{name} has room"


def _joined(outcomes: Sequence[Outcome], n_seeds: int) -> list[dict[str, Any]]:
    """Return one record a claim: over several seeds the first that failed, with a count."""
    if n_seeds == 1:
        return [record.to_json() for outcome in outcomes for record in outcome.records]
    by_claim: dict[str, list[Record]] = {}
    for outcome in outcomes:
        for record in outcome.records:
            by_claim.setdefault(record.claim, []).append(record)
    joined = []
    for records in by_claim.values():
        failed = [r for r in records if r.failed]
        passed = len(records) - len(failed)
        joined.append(
            {**(failed or records)[0].to_json(), "seeds": {"of": n_seeds, "passed": passed}}
        )
    return joined


def _summary(outcomes: Sequence[Outcome], n_seeds: int) -> None:
    records = _joined(outcomes, n_seeds)
    if n_seeds > 1:
        for record in records:
            count = record["seeds"]
            tally = f"{count['passed']}/{count['of']} seeds"
            out.print(f"{_coloured(record['verdict'])}  {record['claim']}  {tally}")
            for problem in record["problems"]:
                out.print(f"    seed {record['seed']}: {problem}", markup=False)
    counts = {verdict: sum(r["verdict"] == verdict for r in records) for verdict in COLOUR}
    text = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    out.print(text or "no claims")


def _table(records: Sequence[Record]) -> None:
    """Print one claim a line, whole; in columns on a terminal."""
    rows = [(r.claim, r.origin, r.grade or "", r.verdict or "not run") for r in records]
    if not out.is_terminal:
        for row in rows:
            print("\t".join(row))
        return
    table = Table("claim", "origin", "grade", "verdict", box=None, header_style="bold")
    for claim, origin, grade, verdict in rows:
        table.add_row(claim, origin, grade, _coloured(verdict))
    width = max((len(claim) for claim, *_ in rows), default=0) + 40
    Console(width=max(out.width, width)).print(table)


def _show_record(record: Record) -> None:
    if record.verdict is None:
        out.print("not run yet: theorylab run --full " + record.claim.split(":")[0])
        return
    out.print(f"verdict: {_coloured(record.verdict)} ({record.grade})")
    for part in record.parts:
        if part.case != record.parts[0].case:
            continue
        sides = f"{part.measured} +- {part.error} {part.relation} {part.predicted}"
        out.print(f"  {part.name} (case {part.case}): {sides}", markup=False)
        details = [f"margin {part.margin}", part.source]
        details += [_mark(part, k, v) for k, v in part.marks.items()]
        out.print(f"    {'; '.join(filter(None, details))}", markup=False)
    for control in record.controls:
        state = "decides" if control.decides else "does not decide"
        out.print(f"  {control.kind} {control.name}: {state}", markup=False)
    for reason, text in record.notes.items():
        out.print(f"  {reason}: {text}", markup=False)


def _coloured(verdict: str | None) -> str:
    word = verdict or "not run"
    return f"[{COLOUR[word]}]{word}[/]" if word in COLOUR else escape(word)


def _print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, indent=1, ensure_ascii=False))


def _fail(message: str, *, code: int = 2) -> NoReturn:
    err.print(message, markup=False, style="red")
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
