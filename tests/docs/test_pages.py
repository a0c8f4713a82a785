"""What the pages under docs print as code, commands and output is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import langmeter
from tests.support.pages import ROOT, Block, Page, matches, matches_whole, run, run_program

pytestmark = pytest.mark.process

NAMES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
GUIDES = [name for name in NAMES if name.startswith("docs/guides/")]
#: Pages that run nothing: they explain, or their examples need another machine or tool.
STILL = ("docs/design/", "docs/dev/", "docs/reference/", "docs/glossary.md", "docs/index.md")


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(STILL)])
def test_a_page_does_what_it_says(name: str, tmp_path: Path) -> None:
    """Its Python runs as one program and prints what it promises; then its commands do."""
    page = Page(name)
    page.write_files(tmp_path)
    if program := page.program():
        done = run_program(program, tmp_path)
        assert done.returncode == 0, done.stderr
        assert matches_whole("\n".join(page.promised()), done.stdout), done.stdout
    assert page.promised() or page.commands()
    for command, promised in page.shown():
        assert command.startswith("langmeter "), command
        done = run(command, tmp_path)
        assert done.returncode == 0, done.stderr
        assert matches(promised, done.stdout + done.stderr), done.stdout + done.stderr


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_opens_with_a_recipe(name: str) -> None:
    """It has at most three lines below its imports, and what they print is on the page."""
    recipe, following = [*Page(name).visible, Block("", "", "")][:2]
    lines = [line for line in recipe.text.splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith(("from ", "import "))]) <= 3
    promise = recipe.language == "python" and re.search(r"print\(.*\)  # ", lines[-1])
    assert promise or following.language == "text", recipe.text


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md", *GUIDES])
def test_its_code_can_be_copied(name: str) -> None:
    """Visible code imports what it uses of langmeter; other names it has, or the page explains."""
    assert Page(name).unexplained(set(langmeter.__all__)) == set()


@pytest.mark.parametrize("name", ["README.md", *NAMES])
def test_its_links_lead_somewhere(name: str) -> None:
    """Each link to a file of the project names one that is there."""
    text = (ROOT / name).read_text(encoding="utf8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    for link in links:
        assert (ROOT / name).parent.joinpath(link).exists(), link


def test_the_readme_leads_to_every_guide() -> None:
    """A reader of the README finds each guide by a link."""
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    assert [name for name in GUIDES if f"]({name})" not in readme] == []


@pytest.mark.parametrize(
    ("promised", "output", "same"),
    [
        ("a\nb", "before\na\nb\nafter\n", True),
        ("a\n…\nc", "a\nb\nc\n", True),
        ("a … c", "a b c\n", True),
        ("a", "ab\n", False),
        ("1.5 USD", "1x5 USD\n", False),
        ("a\nb", "b\na\n", False),
    ],
)
def test_output_is_compared_by_whole_lines(promised: str, output: str, same: bool) -> None:
    """The lines of a page are in the output one by one; only `…` stands for other text."""
    assert matches(promised, output) is same
