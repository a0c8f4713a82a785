"""What the pages under docs print as code, commands and output is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pages import ROOT, Page, matches, run, run_program

NAMES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_does_what_it_says(name: str, tmp_path: Path) -> None:
    """Its Python runs as one program and prints what it promises; then its commands do."""
    page = Page(name)
    page.write_files(tmp_path)
    done = run_program(page.program(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert page.promised()
    assert done.stdout.splitlines() == page.promised()
    for command, shown in page.shown():
        assert command.startswith("langmeter "), command
        done = run(command, tmp_path)
        assert done.returncode == 0, done.stderr
        assert matches(shown, done.stdout), done.stdout


@pytest.mark.parametrize("name", ["README.md", *NAMES])
def test_its_links_lead_somewhere(name: str) -> None:
    """Each link to a file of the project names one that is there."""
    text = (ROOT / name).read_text(encoding="utf8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    for link in links:
        assert (ROOT / name).parent.joinpath(link).exists(), link


def test_the_readme_leads_to_every_page() -> None:
    """A page that nothing links to is read by nobody."""
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    assert [name for name in NAMES if f"]({name})" not in readme] == []


@pytest.mark.parametrize(
    ("shown", "output", "same"),
    [
        ("a\nb", "before\na\nb\nafter\n", True),
        ("a\n…\nc", "a\nb\nc\n", True),
        ("a … c", "a b c\n", True),
        ("a", "ab\n", False),
        ("1.5 USD", "1x5 USD\n", False),
        ("a\nb", "b\na\n", False),
    ],
)
def test_output_is_compared_by_whole_lines(shown: str, output: str, same: bool) -> None:
    """What a page shows is in the output line by line; only `…` stands for something else."""
    assert matches(shown, output) is same
