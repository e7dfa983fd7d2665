"""The command ``xaibook``: run, build, pdf, epub, keep, verify, claims, editions, doctor.

Exit status: 0 when all went well; 1 when a notebook failed, a value differs or something is missing; 2 when
the command cannot be carried out as given; 130 after Ctrl-C. What a user can mend is said in one line, never
as a traceback.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from xaicore.book.running.display import clock
from xaicore.core.errors import UserError
from xaicore.core.units import number
from xaicore.run.repository import find_root

EXAMPLES = {
    "run": ["xaibook run --edition quick --only p1", "xaibook run --only p1 -p eps_max 8/255 -p n_images 50"],
    "build": ["xaibook build --edition quick"],
    "keep": ["xaibook run --edition embedded --only p4 --seeds 0-4", "xaibook keep --edition embedded"],
    "verify": ["xaibook verify --edition embedded"],
    "claims": ["xaibook claims --edition quick", "xaibook claims --json > claims.json"],
    "editions": ["xaibook editions --costs paper"],
}
"""What the help of a command shows; of one that is not here, the command alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line (default: the process's own) and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status = int(options.command(find_root(), options))
        following = _following(options.command.__name__.lstrip("_"), options, status)
        if following:
            print(f"next: {following}", file=sys.stderr)  # what a program reads stays as it is
        return status
    except UserError as error:
        print(f"xaibook: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("xaibook: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, say `head`, has gone
        sys.stderr.close()
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xaibook", description="Run and build the book Attacks, Explained.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(
        command: Callable[..., int], about: str, edition: str | None = None, which: str = "which edition"
    ) -> Any:
        """Add a command that is named as its function, and its option --edition where it has a default."""
        name = command.__name__.lstrip("_")
        lines = "\n".join(f"  {line}" for line in EXAMPLES.get(name, [f"xaibook {name}"]))
        added = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=f"for example:\n{lines}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        if edition is not None:
            added.add_argument("--edition", default=edition, help=f"{which} (default: {edition})")
        return added

    run = add(_run, "execute the notebooks of an edition", "embedded")
    run.add_argument("--only", metavar="p1,p3", help="only notebooks whose names begin so")
    run.add_argument(
        "--seeds",
        metavar="0-4",
        help="a run for each of these seeds, side by side (default: the edition's first)",
    )
    run.add_argument(
        "--engine", default="local", metavar="local|ray://…", help="where batches run (default: local)"
    )
    run.add_argument(
        "-p",
        dest="overrides",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="another value for a parameter, may be repeated; such a run goes to runs/custom",
    )
    again = run.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="continue where an earlier run stopped (the default)"
    )
    again.add_argument(
        "--fresh", action="store_true", help="execute everything anew and take nothing from the store"
    )
    add(
        _build,
        "build the book from the executed notebooks and check it",
        "embedded",
        "whose runs the chapters show",
    )
    add(_pdf, "make a PDF of the book that was built last, through a Chromium")
    add(_epub, "make an EPUB of the book that was built last")
    add(
        _keep,
        "pool the complete runs of an edition, and put them and the verdicts where they are committed",
        "reference",
    )
    add(_verify, "compare this machine's values with the committed ones", "embedded")
    claims = add(_claims, "list every claim with the paper's number, ours and the verdict")
    claims.add_argument("--json", action="store_true", help="print JSON")
    claims.add_argument(
        "--edition",
        default=None,
        help="judge this machine's runs of an edition alone, not the committed evidence",
    )
    claims.add_argument(
        "--accept",
        action="store_true",
        help="commit the verdicts of the committed evidence and say which changed",
    )
    editions = add(_editions, "list what there is to run, what it needs, how long it takes")
    editions.add_argument(
        "--costs",
        metavar="EDITION",
        help="instead: time and memory of its notebooks, extrapolated from what was measured with few images",
    )
    add(_doctor, "say what this machine can run and what is missing")
    return parser


def _following(command: str, options: argparse.Namespace, status: int) -> str:
    """Return what to do after a command that ended with 0 or 1."""
    edition = getattr(options, "edition", None)
    if status > 1:
        return ""
    if command == "run" and status:
        return "mend what is said above and give the command again; finished batches are kept"
    if command == "run" and options.overrides:
        return "open the notebook in runs/custom, or leave out -p to run what the book shows"
    if command == "run" and options.seeds is not None:
        return f"xaibook keep --edition {edition}, which pools the runs into evidence"
    if command == "claims" and options.accept:
        return "git diff claims/verdicts.yml, and commit it"
    return {
        "run": f"xaibook build --edition {edition}",
        "build": f"xaibook verify --edition {edition}, which compares your values with the committed ones",
        "epub": "open it in a reader of books",
        "pdf": "open or print it",
        "keep": "git diff claims/verdicts.yml, commit it with the results, and xaibook build",
        "verify": "xaibook claims, for what the committed values mean",
        "claims": "the ledgers of the book have rule, reason and control of each (xaibook build)",
        "editions": "xaibook run --edition quick, or xaibook doctor for what this machine can run",
        "doctor": "mend what is marked, and xaibook doctor again"
        if status
        else "xaibook run --edition quick",
    }.get(command, "")


def _run(root: Path, options: argparse.Namespace) -> int:
    from xaicore.book.running.editions import chosen_seeds
    from xaicore.book.running.runner import run

    overrides: dict[str, str] = {}
    for name, value in options.overrides:
        if name in overrides:
            raise UserError(f"parameter {name} is given twice")
        overrides[name] = _from_here(name, value, root)
    for variable in ("XAICORE_DATA", "XAICORE_STORE"):
        if os.environ.get(variable):
            os.environ[variable] = _absolute(os.environ[variable], root)
    seeds = None if options.seeds is None else chosen_seeds(options.seeds)
    given = {"only": options.only, "overrides": overrides, "fresh": options.fresh, "engine": options.engine}
    return run(root, options.edition, seeds=seeds, **given)


def _from_here(name: str, value: str, root: Path) -> str:
    """Return a parameter's value; a file or folder is meant from where the command is typed."""
    names_a_place = name == "data_root" or name.split("_")[-1] == "weights"
    plain = value.strip().lower() in ("", "none", "null", "imagenet")
    return _absolute(value, root) if names_a_place and not plain else value


def _absolute(place: str, root: Path) -> str:
    """Return what ``place`` names, for notebooks that work in ``root``; as it is where that is the folder we are in."""
    path = Path(place).expanduser()
    return place if path.is_absolute() or Path.cwd() == root else str(Path.cwd() / path)


def _build(root: Path, options: argparse.Namespace) -> int:
    from xaicore.book.pages.build import build

    page = build(root, options.edition)
    print(f"the book is built; open {page.relative_to(root)}")
    return 0


def _pdf(root: Path, options: argparse.Namespace) -> int:
    from xaicore.book.pages.one_file import pdf

    print(f"the book is one file: {pdf(root).relative_to(root)}")
    return 0


def _epub(root: Path, options: argparse.Namespace) -> int:
    from xaicore.book.pages.one_file import epub

    print(f"the book is one file: {epub(root).relative_to(root)}")
    return 0


def _keep(root: Path, options: argparse.Namespace) -> int:
    from xaicore.book.claims.ledger import VERDICTS
    from xaicore.book.keeping import keep

    kept = keep(root, options.edition)
    for finding in kept.noticed:
        print(f"noticed: {finding}")
    for name in kept.left_out:
        print(f"left out: {name} has no complete run; run: xaibook run --edition {options.edition}")
    for change in kept.changes:
        print(f"verdict changed: {change}")
    done = ", ".join(f"{name} ({runs} run{'s' * (runs > 1)})" for name, runs in kept.notebooks.items())
    print(
        f"kept {done or 'nothing'}; results/{options.edition} takes {kept.size / 1e6:.1f} MB, verdicts are in {VERDICTS}"
    )
    return 0


def _verify(root: Path, options: argparse.Namespace) -> int:
    from xaicore.book.verify import INSIDE, SAME, summary, verify

    rows = verify(root, options.edition)
    outside = rows[~rows["outcome"].isin((INSIDE, SAME))]
    _print_table(list(rows.columns), outside.itertuples(index=False, name=None))
    print(summary(rows))
    return 0


def _claims(root: Path, options: argparse.Namespace) -> int:
    from xaicore.book.claims.ledger import accept_verdicts, claims_table, committed_evidence, judge
    from xaicore.book.claims.schema import load_claims
    from xaicore.book.running.editions import load_edition
    from xaicore.book.running.runner import completed_runs
    from xaicore.run.evidence import load_evidence

    if options.accept:
        for change in accept_verdicts(root):
            print(f"verdict changed: {change}")
        return 0
    evidence = committed_evidence(root)
    if options.edition is not None:
        load_edition(root, options.edition)
        runs = completed_runs(root, options.edition)
        evidence = {options.edition: {name: load_evidence(folder) for name, folder in runs.items()}}
    table = claims_table(judge(load_claims(root / "claims"), evidence))
    if options.json:
        print(json.dumps(table.to_dict("records"), indent=1, ensure_ascii=False, default=list))
    else:
        _print_table(list(table.columns), table.itertuples(index=False, name=None))
    return 0


def _editions(root: Path, options: argparse.Namespace) -> int:
    from xaicore.book.running.editions import edition_names, load_edition, on_cores
    from xaicore.run.engine import cores

    if options.costs is not None:
        from xaicore.book.pages.measured import COLUMNS, cost_note, cost_rows

        _print_table(COLUMNS, cost_rows(root, load_edition(root, options.costs)))
        print(cost_note(root))
        return 0
    rows = []
    found = [load_edition(root, name) for name in edition_names(root)]
    for edition in sorted(found, key=lambda each: each.expected_seconds(cores())):
        needs = [f"data: {name}" for name in edition.data]
        needs += ["a GPU"] * edition.needs.gpu + ["network"] * edition.needs.network
        time = clock(edition.expected_seconds(cores()))
        rows.append([edition.name, time, ", ".join(needs) or "nothing", edition.description])
        for name, run in edition.notebooks.items():
            rows.append([f"  {name}", clock(run.expected_seconds), "", ""])
    _print_table(["edition", f"takes about, {on_cores()}", "needs", "is"], rows)
    return 0


def _doctor(root: Path, options: argparse.Namespace) -> int:
    from xaicore.book.doctor import examine

    findings, well = examine(root)
    for finding in findings:
        print(finding)
    return 0 if well else 1


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value, 6)
    if isinstance(value, (tuple, list)):
        return " … ".join(_cell(item) for item in value)
    return str(value)


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(_cell, row))
    # A file or pipe has no width to wrap to.
    Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    sys.exit(main())
