"""Changes that models propose, applied to the text of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import pairwise
from typing import Any, Final, NamedTuple

from langmeter._base.check import refusal
from langmeter.defects.outcome import Fix

#: Context lines at each end of a hunk that may differ from the file, as GNU patch allows.
_FUZZ: Final = 2
#: Models leave out the numbers of a hunk, or give wrong ones.
_HUNK: Final = re.compile(r"@@(?: -(\d{1,9})(?:,\d+)? \+\d+(?:,\d+)? @@)?")
_FENCE: Final = re.compile(r"^```[^\n]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
_DIFF: Final = re.compile(r"^(?:@@|--- [^\n]+\n\+\+\+ )", re.MULTILINE)


#: Lines to compare: as they are, then without blanks at their ends.
_Forms = list[tuple[Callable[[str], str], list[str]]]


class ProposalError(Exception):
    """Raised where a proposal gives no new text; `fix` is the verdict on it."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.fix = Fix(outcome, 0.0, source="form", reason=reason)


class _Hunk(NamedTuple):
    start: int
    body: list[str]


@dataclass(frozen=True)
class Proposal:
    """Change that a model proposes to one file.

    Attributes:
        before: text of the file; empty for a new one.
        answer: a unified diff, or the code that takes the place of `line_ranges`; either may stand
            in a Markdown fence. None or empty where the model gave nothing.
        line_ranges: ranges of lines from `start` to `end`, from 1, both inclusive, as mappings,
            objects or pairs. The code takes the place of each.
        name: name of the file. Selects the part of a diff of several files, and the language.

    Raises:
        ConfigError: `before` or `name` is not a text, or `name` is not a plain file name.
    """

    before: str
    answer: str | None
    line_ranges: Sequence[Any] = ()
    name: str = "fix.c"

    def __post_init__(self) -> None:
        if not isinstance(self.before, str):
            raise refusal("before", "the text of the file", self.before)
        if not isinstance(self.name, str) or not re.fullmatch(r"[^/\\\0]*[^/\\\0.]", self.name):
            raise refusal("name", "a file name without a folder", self.name)

    @cached_property
    def after(self) -> str:
        """Text of the file with the change. Raises ProposalError where there is none.

        Hunks of a diff may have wrong counts, no line numbers and drifted context: each is placed
        where its lines are, nearest to its number, blanks at the ends of lines aside; if they are
        nowhere, without up to two lines of context at each end. Line ends stay as in `before`.
        """
        answer = _without_fence(self.answer) if isinstance(self.answer, str) else ""
        if not answer.strip():
            raise ProposalError("empty", "no change proposed")
        lines = self.before.split("\n")
        ends = lines[-1] == ""  # whether the last line has an end
        if ends:
            del lines[-1]
        end = "\r" if self.before.count("\r\n") * 2 > self.before.count("\n") else ""
        if _DIFF.search(answer):
            lines, ends = _patched(lines, _hunks(answer, self.name), end, ends)
        else:
            code = [line.removesuffix("\r") + end for line in answer.removesuffix("\n").split("\n")]
            lines = _replaced(lines, code, self.line_ranges)
        text = "\n".join(lines)
        text = text + "\n" if ends and lines else text.removesuffix("\r")
        if text == self.before:
            raise ProposalError("empty", "the change changes nothing")
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half of a character, which JSON can hold
            raise ProposalError("unparsable", "the change is not valid Unicode") from None
        return text


def library(name: str) -> Any:
    """Return a module of the extra `defects`. Raises ImportError with the remedy."""
    try:
        return import_module(name)
    except ImportError as exc:
        message = f'scorers need {name.partition(".")[0]}: pip install "langmeter[defects]"'
        raise ImportError(message, name=name) from exc


def _without_fence(answer: str) -> str:
    """Return the first fenced block that is a diff, else the first, else the answer itself."""
    blocks = _FENCE.findall(answer.replace("\r\n", "\n"))
    return next(filter(_DIFF.search, blocks), blocks[0] if blocks else answer)


def _replaced(lines: list[str], code: list[str], line_ranges: Iterable[Any]) -> list[str]:
    spans = sorted(map(_span, line_ranges or ()))
    if not spans:
        raise ProposalError("does_not_apply", "neither a diff nor line ranges")
    if spans[0][0] < 1 or spans[-1][1] > len(lines) or any(start > end for start, end in spans):
        raise ProposalError("does_not_apply", "a line range is outside of the file")
    if any(one[1] >= other[0] for one, other in pairwise(spans)):
        raise ProposalError("does_not_apply", "line ranges overlap")
    for start, end in reversed(spans):
        lines[start - 1 : end] = code
    return lines


def _span(given: Any) -> tuple[int, int]:
    """Return start and end of a line range; the model wrote it, so it may be anything."""
    if isinstance(given, Mapping):
        span = given.get("start"), given.get("end")
    elif isinstance(given, list | tuple) and len(given) == 2:
        span = given[0], given[1]
    else:
        span = getattr(given, "start", None), getattr(given, "end", None)
    if any(type(line) is not int for line in span):
        raise ProposalError("does_not_apply", "a line range has no start and end")
    return span  # type: ignore[return-value]


def _hunks(diff: str, name: str) -> list[_Hunk]:
    """Return the hunks of the file `name`, or of the only file."""
    lines = [line.removesuffix("\r") for line in diff.split("\n")]
    files: list[tuple[str, list[_Hunk]]] = [("", [])]
    body: list[str] | None = None
    for number, line in enumerate(lines):
        second, third = [*lines[number + 1 : number + 3], "", ""][:2]
        # Three lines, because a removed "-- x" and an added "++ y" look like a header too.
        if line.startswith("--- ") and second.startswith("+++ ") and third.startswith("@@"):
            paths = [text[4:].partition("\t")[0].strip() for text in (line, second)]
            files.append((paths[paths[1] != "/dev/null"], []))
            body = None
        elif match := _HUNK.match(line):
            body = []
            files[-1][1].append(_Hunk(int(match[1] or 1), body))
        elif line == "-- " and re.match(r"\d+\.\d+", second):  # signature of `git format-patch`
            body = None
        elif body is not None and (not line or line[0] in " +-\\"):
            body.append(line)
        elif line[:1] in ("+", "-") and files[-1][1]:
            raise ProposalError("unparsable", "changed lines outside of a hunk")
        else:
            body = None
    files = [file for file in files if file[1]]
    if len(files) > 1:
        files = [file for file in files if re.split(r"[/\\]", file[0])[-1] == name]
    if len(files) != 1:
        outcome = "does_not_apply" if _HUNK.search(diff) else "unparsable"
        raise ProposalError(outcome, "the diff has no part for the file, or several")
    return files[0][1]


def _patched(lines: list[str], hunks: list[_Hunk], end: str, ends: bool) -> tuple[list[str], bool]:
    """Return the lines with all hunks applied, and whether the last one has an end."""
    whatthepatch = library("whatthepatch")
    patch = library("whatthepatch.patch")
    forms: _Forms = [
        (loose, [loose(line.removesuffix("\r")) for line in lines]) for loose in (str, str.rstrip)
    ]
    changes: list[Any] = []
    drift = first = shift = 0
    for start, body in hunks:
        while body and not body[-1]:  # the end of the answer, not context
            del body[-1]
        for line, marker in pairwise(body):
            if marker.startswith("\\"):  # "\ No newline at end of file"
                ends = line.startswith("-")
        texts = [line or " " for line in body if not line.startswith("\\")]
        # Counts are made anew: by those of the model, if too low, whatthepatch would drop lines.
        # Its parser of hunks, not of texts, which takes a removed "-- x: y" for a header.
        old = sum(line[0] in " -" for line in texts)
        new = sum(line[0] in " +" for line in texts)
        parsed = patch.parse_unified_diff([f"@@ -{start},{old} +{start},{new} @@", *texts]) or ()
        wanted = (start - 1 if old else start) + drift
        place, leading, trailing = _place(forms, parsed, wanted, first)
        drift += place - leading - wanted
        for change in parsed[leading : len(parsed) - trailing]:
            if change.old is None:
                changes.append(change._replace(new=place + shift + 1, line=change.line + end))
                shift += 1
                continue
            after = None if change.new is None else place + shift + 1
            changes.append(change._replace(old=place + 1, new=after, line=lines[place]))
            shift -= after is None
            place += 1
        first = place
    return whatthepatch.apply_diff(patch.diffobj(None, changes, ""), lines), ends


def _place(forms: _Forms, changes: Sequence[Any], wanted: int, first: int) -> tuple[int, int, int]:
    """Return where a hunk applies, and how many lines of context at its ends are left out."""
    context = [change.old is not None and change.new is not None for change in changes]
    if all(context):
        raise ProposalError("unparsable", "a hunk changes nothing")
    if all(change.old is None for change in changes):
        if not first <= wanted <= len(forms[0][1]):
            raise ProposalError("does_not_apply", "a hunk is outside of the file")
        return wanted, 0, 0
    before, behind = context.index(False), context[::-1].index(False)
    for loose, texts in forms:
        for fuzz in range(_FUZZ + 1):
            leading, trailing = min(fuzz, before), min(fuzz, behind)
            rest = changes[leading : len(changes) - trailing]
            pattern = [loose(change.line) for change in rest if change.old is not None]
            if fuzz and not any(map(str.strip, pattern)):
                break  # blank lines are everywhere
            stop = len(texts) - len(pattern) + 1
            for at in _nearest(wanted + leading, first, stop):
                if texts[at] == pattern[0] and texts[at : at + len(pattern)] == pattern:
                    return at, leading, trailing
    raise ProposalError("does_not_apply", "the context of a hunk is not in the file")


def _nearest(wanted: int, first: int, stop: int) -> Iterator[int]:
    """Yield the numbers from `first` to below `stop`, those near to `wanted` first."""
    middle = min(max(wanted, first), stop - 1)
    for distance in range(stop - first):
        if middle - distance >= first:
            yield middle - distance
        if distance and middle + distance < stop:
            yield middle + distance
