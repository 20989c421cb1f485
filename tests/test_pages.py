"""The pages: one for each question, short, with links that lead somewhere and code that is real."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "examples" / "guides").glob("*.md"))
INDEX = ROOT / "examples" / "README.md"
PAGES = [ROOT / "README.md", INDEX, *GUIDES, *sorted((ROOT / "examples").glob("*/README.md"))]
LINK = r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)"
of_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """What its headings are called in a link."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@of_pages
def test_its_links_and_pictures_lead_somewhere(page):
    for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_a_guide_is_short_and_opens_with_its_question(page):
    lines = page.read_text().splitlines()
    assert len(lines) <= 200
    assert lines[0].startswith("# ")
    assert re.match(r"\*[A-Z].*", lines[2])
    assert "?*" in " ".join(lines[2:4])


def test_the_index_leads_to_every_page_script_and_config():
    linked = {(INDEX.parent / link).resolve() for link in re.findall(LINK, INDEX.read_text())}
    assert {*GUIDES, *(ROOT / "examples").glob("*.md")} - {INDEX} <= linked
    for file in [*INDEX.parent.glob("*.py"), *INDEX.parent.glob("*.yaml")]:
        assert file.name in INDEX.read_text(), file


def test_the_readme_leads_to_every_guide():
    linked = re.findall(LINK, (ROOT / "README.md").read_text())
    assert {f"examples/guides/{page.name}" for page in GUIDES} <= set(linked)


def test_the_tests_that_pages_name_exist():
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+\.py)`", page.read_text())}
    assert len(named) > 25
    assert named <= {path.name for path in Path(__file__).parent.rglob("test_*.py")}


def words_of(path):
    """All strings of a module, one after the other."""
    tree = ast.parse(path.read_text())
    parts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    return " ".join(part for part in parts if isinstance(part, str))


def test_the_refusals_that_are_quoted_are_made():
    page = (ROOT / "examples" / "guides" / "targets.md").read_text()
    table = page[page.index("| refused |") :].split("\n\n")[0].splitlines()[2:]
    said = " ".join(map(words_of, (ROOT / "lightning_mmix").rglob("*.py")))
    said = re.sub(r"\s+", " ", said)
    quoted = [row.split(" | ")[1].strip("`") for row in table]
    assert len(quoted) > 8
    for sentence in quoted:
        assert all(part in said for part in sentence.split("; ")), sentence
