"""The files around the code say the same things as each other."""

import fnmatch
import importlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import xaicore
from xaicore.book.keeping import LIMIT_BYTES
from xaicore.book.pages.one_file import FILES

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def test_constraints_pin_every_dependency_within_its_range() -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        requirement = Requirement(line)
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), (
            f"{line!r} in constraints.txt is not a pin"
        )
        pins[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    extras = PROJECT["optional-dependencies"]
    for name, requirement in requirements(
        [*PROJECT["dependencies"], *(r for extra in extras.values() for r in extra)]
    ).items():
        assert name in pins, f"{name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[name]), (
            f"{name}=={pins[name]} is outside {requirement.specifier}"
        )


def test_every_dependency_has_a_lower_bound() -> None:
    extras = PROJECT["optional-dependencies"].values()
    for text in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]:
        assert any(bound.operator in (">=", "==") for bound in Requirement(text).specifier), text


def test_versions_without_the_lock_are_tried_in_ci() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/versions.yml").read_text(encoding="utf-8"))["jobs"]
    tried = {(job["python"], job["resolution"]) for job in jobs["versions"]["strategy"]["matrix"]["include"]}
    assert tried == {(PROJECT["requires-python"].removeprefix(">="), "lowest-direct"), ("3.13", "highest")}
    commands = [step["run"] for step in jobs["versions"]["steps"] if "run" in step]
    assert not any("constraint" in command for command in commands)
    assert any("--resolution ${{ matrix.resolution }}" in command for command in commands)


def test_versions_agree() -> None:
    version = PROJECT["version"]
    assert xaicore.__version__ == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_citation_names_the_papers_of_the_claims() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    bibliography = (
        (ROOT / "book" / "references.bib").read_text(encoding="utf-8").replace("{", "").replace("}", "")
    )
    titles = [reference["title"] for reference in citation["references"]]
    papers = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in tracked("claims/p*.yml")]
    assert {title.lower() for title in titles} == {paper["title"].lower() for paper in papers}
    for title in titles:
        assert title.lower() in bibliography.lower()


def test_readme_and_makefile_name_the_same_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("book", "pdf", "epub", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for command in ("run", "editions", "doctor", "claims"):
        assert f"xaibook {command}" in readme
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readme_has_the_findings_of_the_front_page_and_small_pictures() -> None:
    readme, front = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "book/index.md"))
    findings = re.findall(r"^\*\*([^*]+)\*\*", front, re.MULTILINE)
    assert re.findall(r"^\d\. \*\*([^*]+)\*\*", readme, re.MULTILINE) == findings
    assert len(findings) == 3
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    assert len(pictures) == 2
    assert all((ROOT / name).stat().st_size < 150_000 for name in pictures)


def test_the_script_of_the_pictures_finds_what_it_imports() -> None:
    assert importlib.import_module("make_pictures").PICTURES


def test_what_files_cite_is_there() -> None:
    """Documents and files of the project by their path, and modules that commands run; N, <…> and * stand for any."""
    names = {path.relative_to(ROOT).as_posix() for path in tracked()}
    folders = "xaicore|tests|book|claims|editions|notebooks|benchmarks|results|[.]github"
    kinds = "md|py|ipynb|yml|json|css|js|bib|gz|csv"
    path = rf"(?<![\w./-])(?:{folders})/[\w./*<>-]*\w\.(?:{kinds})\b"
    cited = re.compile(
        rf"{path}|(?<![\w./-])[A-Z][A-Z_-]{{2,}}\.md\b|(?<=python -m )(?:xaicore|benchmarks)[\w.]*\w"
    )
    count, missing = 0, []
    for source in tracked(
        "*.md",
        "*.py",
        "*.yml",
        "*.toml",
        "*.cff",
        "*.ipynb",
        "Makefile",
        ":!tests",
        ":!results",
        ":!CHANGELOG.md",
    ):
        for name in cited.findall(source.read_text(encoding="utf-8")):
            of_module = [f"{name.replace('.', '/')}{end}" for end in (".py", "/__main__.py")]
            pattern = re.sub(r"<\w+>|N", "*", name)
            found = names & {name, *of_module} or fnmatch.filter(names, pattern)
            count += 1
            missing += [] if found else [f"{source.name} cites {name}"]
    assert count > 40
    assert missing == []


def test_the_release_attaches_what_is_made() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))["jobs"]
    commands = "\n".join(step.get("run", "") for step in jobs["release"]["steps"])
    for kind, name in FILES.items():
        assert f"xaibook {kind.lower()}\n" in commands
        assert f"_build/html/{name}" in commands
    assert commands.index("xaibook pdf") < commands.index("zip "), "the site offers both"
    assert "sha256sum" in commands


def test_only_the_tests_of_the_cluster_wait_for_ray() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    needs = dict(re.findall(r"^(book|reference|test|test-cluster): (.*)$", makefile, re.MULTILINE))
    assert [name for name, given in needs.items() if "$(CLUSTER)" in given] == ["test-cluster"]
    assert len(needs) == 4


def test_every_edition_is_in_the_documentation() -> None:
    page = (ROOT / "book" / "reading.md").read_text(encoding="utf-8")
    for path in tracked("editions/*.yml"):
        assert f"| {path.stem} |" in page


@pytest.mark.parametrize("path", tracked("notebooks/*.ipynb"), ids=lambda path: path.stem)
def test_source_notebooks_carry_no_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert "papermill" not in cell["metadata"]
    assert "papermill" not in notebook["metadata"]


def test_nothing_tracked_is_large_or_names_this_machine() -> None:
    kept = set(tracked("results/*.ipynb"))  # with their figures; what they may take in all stands below
    for path in tracked():
        assert path.stat().st_size < (8_000_000 if path in kept else 2_000_000), f"{path.name} is too large"
        if path.suffix in {".py", ".md", ".yml", ".toml", ".ipynb", ".txt", ".cff", ".json"}:
            assert str(ROOT) not in path.read_text(encoding="utf-8"), (
                f"{path.name} names a folder of this machine"
            )


def test_the_results_of_an_edition_stay_small() -> None:
    sizes: dict[str, int] = {}
    for path in tracked("results"):
        edition = path.relative_to(ROOT / "results").parts[0]
        sizes[edition] = sizes.get(edition, 0) + path.stat().st_size
    assert sizes["embedded"] > 0
    for edition, size in sizes.items():
        assert size <= LIMIT_BYTES, edition


COUNTS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def test_the_front_page_lists_every_paper_and_titles_count_them() -> None:
    papers = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in tracked("claims/p*.yml")]
    front = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    for paper in papers:
        links = f"{{doc}}`Chapter </notebooks/{paper['notebook']}>`, {{doc}}`ledger <claims/{paper['id']}>`"
        assert links in front, f"book/index.md lists the papers: a line on {paper['id']}, and {links}"
        assert f"{{cite:t}}`{paper['bib']}`" in front, f"book/index.md does not cite {paper['bib']}"
    counted = f"{COUNTS[len(papers)]} papers"
    for name in (
        "CITATION.cff",
        "codemeta.json",
        ".zenodo.json",
        "codecheck.yml",
        "pyproject.toml",
        "README.md",
    ):
        said = (ROOT / name).read_text(encoding="utf-8")
        assert counted in said, (
            f"{name} says another number than {counted}: git grep -i ' papers' shows where"
        )
    assert counted in front.lower(), f"book/index.md says another number than {counted}"


def test_all_that_describes_the_project_says_the_same() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    codemeta = json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    check = yaml.safe_load((ROOT / "codecheck.yml").read_text(encoding="utf-8"))
    assert {codemeta["name"], zenodo["title"], check["paper"]["title"]} == {citation["title"]}
    assert {codemeta["version"], zenodo["version"]} == {PROJECT["version"]}
    assert codemeta["license"].endswith(f"/{citation['license']}")
    assert zenodo["license"] == citation["license"]
    authors = [author["name"] for author in citation["authors"]]
    for described in (codemeta["author"], zenodo["creators"], check["paper"]["authors"]):
        assert [author["name"] for author in described] == authors
    assert codemeta["keywords"] == zenodo["keywords"] == PROJECT["keywords"]
    assert codemeta["runtimePlatform"] == f"Python {PROJECT['requires-python']}"
    related = {item["identifier"] for item in zenodo["related_identifiers"]}
    known = {
        reference[key] for reference in citation["references"] for key in ("doi", "url") if key in reference
    }
    assert related == known


def test_a_checker_is_told_of_every_committed_record_of_the_embedded_edition() -> None:
    check = yaml.safe_load((ROOT / "codecheck.yml").read_text(encoding="utf-8"))
    listed = [entry["file"] for entry in check["manifest"]]
    assert sorted(listed) == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "results" / "embedded").glob("*/record.json")
    ), "the manifest of codecheck.yml lists each record.json of results/embedded, and nothing else"
