"""Proposed changes: what applies, where, and what does not."""

from __future__ import annotations

import difflib
import shutil
import subprocess
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langmeter.defects.proposal import Proposal, ProposalError, _nearest
from langmeter.errors import ConfigError

FILE = "int f(int *p)\n{\n    int x = 1;\n    return *p;\n}\n\nint g(void)\n{\n    return 2;\n}\n"
FIXED = FILE.replace("    return *p;\n", "    return p ? *p : 0;\n")
DIFF = """\
--- a/list.c
+++ b/list.c
@@ -2,4 +2,4 @@ int f(int *p)
 {
     int x = 1;
-    return *p;
+    return p ? *p : 0;
 }
"""


def after(before: str, answer: Any, *ranges: Any, name: str = "list.c") -> str:
    return Proposal(before, answer, ranges, name).after


def refused(before: str, answer: Any, *ranges: Any) -> str:
    """Outcome of a proposal that gives no text."""
    with pytest.raises(ProposalError) as caught:
        after(before, answer, *ranges)
    assert caught.value.fix.score == 0.0
    assert caught.value.fix.source == "form"
    return str(caught.value.fix.outcome)


texts = st.lists(
    st.sampled_from(["", "a", "b", "  a", "-- x: y", "++ z", "@@", "a\x0cb", "é\u2028"])
)


@given(texts, texts, st.integers(0, 3), st.sampled_from(["\n", "\r\n"]))
def test_a_diff_of_two_texts_makes_one_from_the_other(
    old: list[str], new: list[str], context: int, end: str
) -> None:
    """Whatever difflib writes applies, with form feeds, and lines that look like headers."""
    if old == new:
        return
    diff = difflib.unified_diff(old, new, "a/x.c", "b/x.c", n=context, lineterm="")
    before, wanted = ("".join(line + end for line in lines) for lines in (old, new))
    if not old and end == "\r\n":
        wanted = wanted.replace("\r\n", "\n")  # a new file has no line ends to follow
    assert after(before, "\n".join(diff) + "\n", name="x.c") == wanted


@pytest.mark.process
@pytest.mark.skipif(shutil.which("patch") is None, reason="no patch")
@pytest.mark.parametrize("seed", range(25))
def test_where_gnu_patch_applies_a_diff_the_text_is_the_same(seed: int, tmp_path: Path) -> None:
    """Files drifted by lines on top; patch alone refuses what it holds for the top of a file."""
    random = Random(seed)
    old = [random.choice(["a", "b", "c", f"line {number}"]) for number in range(30)]
    new = list(old)
    for _ in range(3):
        at = random.randrange(len(new))
        new[at : at + random.randint(0, 2)] = [f"new {at}"] * random.randint(0, 2)
    diff = "\n".join(difflib.unified_diff(old, new, "a/x.c", "b/x.c", lineterm="")) + "\n"
    top = ["top"] * random.randint(0, 4)
    before = "\n".join([*top, *old]) + "\n"
    file = tmp_path / "x.c"
    file.write_text(before)
    command = ["patch", "--silent", "--strip=1"]
    result = subprocess.run(command, cwd=tmp_path, input=diff, text=True, capture_output=True)  # noqa: PLW1510
    wanted = file.read_text() if result.returncode == 0 else "\n".join([*top, *new]) + "\n"
    assert after(before, diff, name="x.c") == wanted


@pytest.mark.parametrize(
    "header",
    [
        "@@ -2,1 +2,1 @@",
        "@@ -2,90 +2,91 @@",
        "@@ -900,4 +900,4 @@",
        "@@ -2 +2 @@",
        "@@ @@",
        "@@ … @@",
    ],
)
def test_the_numbers_of_a_hunk_may_be_wrong(header: str) -> None:
    """Counts too small or too large, another line, and no numbers change nothing."""
    assert after(FILE, DIFF.replace("@@ -2,4 +2,4 @@ int f(int *p)", header)) == FIXED


@pytest.mark.parametrize(
    "answer",
    [
        f"Here is the fix:\n```diff\n{DIFF}```\nIt checks `p`.",
        f"```\n{DIFF}",
        DIFF.replace("\n", "\r\n"),
        DIFF + "-- \n2.40.1\n",
        "diff --git a/list.c b/list.c\nindex 1..2 100644\n" + DIFF,
        DIFF.partition("+++ b/list.c\n")[2],
        DIFF.replace("     int x = 1;\n", "     int x = 1;   \n"),
        DIFF.replace("     int x = 1;\n", "     int x = 7;\n").replace(" {\n", " {{\n"),
    ],
    ids=["fenced", "open fence", "CRLF", "signature", "git", "no header", "blanks", "two drifted"],
)
def test_a_diff_may_have_the_faults_that_models_make(answer: str) -> None:
    """Fences, line ends, trailers and two drifted lines of context are passed over."""
    assert after(FILE, answer) == FIXED


def test_a_context_line_without_its_blank_is_an_empty_line() -> None:
    """Models and mail programs strip the blank of empty context lines."""
    diff = "@@ -5,4 +5,4 @@\n }\n\n int g(void)\n-{\n+{ // two\n"
    assert after(FILE, diff) == FILE.replace("g(void)\n{", "g(void)\n{ // two")


def test_of_equal_places_the_nearest_is_taken() -> None:
    """A hunk whose lines are in the file often changes those next to its number."""
    lines = ["x", "y"] * 20
    changed = after("\n".join(lines), "@@ -22,2 +22,2 @@\n x\n-y\n+z\n").split("\n")
    assert [number for number, line in enumerate(changed, 1) if line == "z"] == [22]


@given(st.integers(-9, 99), st.integers(0, 9), st.integers(0, 9))
def test_places_come_by_distance(wanted: int, first: int, count: int) -> None:
    """Every place once, the nearest first."""
    places = range(first, first + count)
    nearest = sorted(places, key=lambda place: (abs(place - wanted), place))
    assert list(_nearest(wanted, first, first + count)) == nearest


def test_later_hunks_drift_with_the_earlier_ones() -> None:
    """A hunk found ten lines below its number moves those behind it."""
    lines = [f"{number}" if number % 7 else "x" for number in range(60)]
    diff = "@@ -3,2 +3,2 @@\n 12\n-13\n+thirteen\n@@ -25 +25 @@\n-x\n+X\n"
    changed = after("\n".join(lines), diff).split("\n")
    assert (changed[13], changed.index("X")) == ("thirteen", 35)


@pytest.mark.parametrize(
    ("diff", "outcome"),
    [
        (DIFF.replace("return *p", "return *q"), "does_not_apply"),
        (DIFF.replace("int x = 1", "int y").replace(" {\n", " {\n a\n b\n c\n"), "does_not_apply"),
        ("@@ -40,0 +41 @@\n+x\n", "does_not_apply"),
        ("@@ -5,2 +5,3 @@\n drifted\n \n+x\n", "does_not_apply"),
        ("--- a/list.c\n+++ b/list.c\n", "unparsable"),
        ("@@ -1 +1 @@\n int f(int *p)\n", "unparsable"),
        (DIFF + "and then\n+    more\n", "unparsable"),
        (DIFF.replace("p ? *p : 0", "*p"), "empty"),
        (DIFF.replace("*p : 0", "\ud800"), "unparsable"),
        (f"@@ -{'9' * 5000},1 +1 @@\n-nothing\n", "does_not_apply"),
    ],
)
def test_a_diff_that_gives_no_text_says_why(diff: str, outcome: str) -> None:
    """Drift in what is removed, no hunk, no change and half a character are told apart."""
    assert refused(FILE, diff) == outcome


def test_of_a_diff_of_several_files_the_one_of_the_name_counts() -> None:
    """Hunks of other files are left out; without the file the diff does not apply."""
    other = DIFF.replace("list.c", "tree.c").replace("int x = 1", "char z")
    assert after(FILE, other + DIFF) == FIXED
    with pytest.raises(ProposalError, match="no part for the file"):
        after(FILE, other + DIFF, name="heap.c")


def test_a_new_file_comes_from_nothing_and_a_deleted_one_is_empty() -> None:
    """`/dev/null` on either side is read."""
    assert after("", "--- /dev/null\n+++ b/list.c\n@@ -0,0 +1,2 @@\n+a\n+b\n") == "a\nb\n"
    assert after("a\nb\n", "--- a/list.c\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n-b\n") == ""


@pytest.mark.parametrize(
    ("before", "diff", "wanted"),
    [
        ("a\nb", "@@ -2 +2 @@\n-b\n\\ No newline at end of file\n+c\n", "a\nc\n"),
        ("a\nb\n", "@@ -2 +2 @@\n-b\n+c\n\\ No newline at end of file\n", "a\nc"),
        ("a\r\nb", "@@ -1 +1 @@\n-a\n+c\n", "c\r\nb"),
        ("a\r\nb\r\n", "@@ -2 +2 @@\n-b\n+c\n\\ No newline at end of file\n", "a\r\nc"),
        ("a\r\nb\nc\r\n", "@@ -1 +1 @@\n-a\n+x\n", "x\r\nb\nc\r\n"),
    ],
)
def test_line_ends_stay_what_they_are(before: str, diff: str, wanted: str) -> None:
    """CRLF, mixed ends and a last line without one survive."""
    assert after(before, diff) == wanted


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.data())
def test_code_takes_the_place_of_line_ranges(lines: list[str], data: st.DataObject) -> None:
    """Each range is replaced, in whatever order they stand."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(lines)), min_size=1)))
    ranges = [{"start": cut, "end": cut} for cut in cuts]
    wanted = ["X\nY" if number in cuts else line for number, line in enumerate(lines, 1)]
    shuffled = data.draw(st.permutations(ranges))
    assert after("\n".join(lines) + "\n", "X\nY\n", *shuffled) == "\n".join(wanted) + "\n"


def test_line_ranges_may_be_mappings_pairs_or_objects() -> None:
    """Ranges of pydantic, JSON and Python are read; a fence is not part of the code."""
    answer = "```c\n    return p ? *p : 0;\n```"
    for span in ({"start": 4, "end": 4}, (4, 4), SimpleNamespace(start=4, end=4)):
        assert after(FILE, answer, span) == FIXED
    assert after("a\r\nb\r\n", "x\ny", (2, 2)) == "a\r\nx\r\ny\r\n"


@pytest.mark.parametrize(
    "ranges",
    [
        [(1, 3), (3, 4)],
        [(10, 11)],
        [(0, 1)],
        [(4, 3)],
        [{"start": 1}],
        [{"start": "1", "end": 2}],
        [None],
        [True],
        [(True, 2)],
        [],
    ],
)
def test_bad_line_ranges_do_not_apply(ranges: list[Any]) -> None:
    """Ranges that overlap, end before they start, leave the file, or are none."""
    assert refused(FILE, "x", *ranges) == "does_not_apply"


@pytest.mark.parametrize("answer", [None, "", " \n", "```c\n```", "```\n\n```\n", 7])
def test_an_answer_without_a_change_is_empty(answer: Any) -> None:
    """No text, blanks and an empty fence count as an empty answer, also where lines are named."""
    assert refused(FILE, answer, (1, 2)) == "empty"


@given(st.text(st.sampled_from("@-+ \\\n1,a`\r"), max_size=80), st.text("a\n\r", max_size=9))
def test_no_answer_raises_anything_else(answer: str, before: str) -> None:
    """An answer gives a text or says why not."""
    outcome = None
    try:
        text = after(before, answer, (1, 1))
    except ProposalError as exc:
        outcome, text = exc.fix.outcome, before
    assert (text == before) == (outcome in {"empty", "unparsable", "does_not_apply"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"before": None}, r"before must be the text of the file, got None"),
        ({"name": "../x.c"}, r"name must be a file name without a folder, got '\.\./x\.c'"),
        ({"name": ".."}, "name must be"),
        ({"name": ""}, "name must be"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    """A file name cannot leave the directory that commands run in."""
    with pytest.raises(ConfigError, match=message):
        Proposal(**{"before": FILE, "answer": DIFF, **arguments})
