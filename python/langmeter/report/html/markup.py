"""HTML as text: elements, tables and figures, in which every text is escaped.

A page is made of `Markup`. What is not `Markup` is text from outside or a figure: it is escaped
where it becomes a child or an attribute of an element, so that no name can leave its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final, NamedTuple, TypeAlias


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


#: What an element may have in it: None and False are left out.
Child: TypeAlias = "str | Iterable[Child] | bool | None"

_EMPTY: Final = ("meta", "link", "input", "path", "rect", "line", "circle")


def join(children: Child) -> Markup:
    """Return children as one piece of HTML, texts among them escaped."""
    if children is None or isinstance(children, bool):
        return Markup()
    if isinstance(children, Markup):
        return children
    if isinstance(children, str):
        return Markup(escape(children))
    return Markup("".join(map(join, children)))


def element(tag: str, *children: Child, **attributes: object) -> Markup:
    """Return an element.

    Args:
        tag: its name.
        children: what stands in it.
        attributes: `class_` is `class`, `aria_label` is `aria-label`; None and False leave one out,
            True gives it no value.
    """
    parts = [tag]
    for name, value in attributes.items():
        written = name.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(written)
        elif value is not None and value is not False:
            parts.append(f'{written}="{escape(str(value))}"')
    start = " ".join(parts)
    return Markup(f"<{start}/>" if tag in _EMPTY else f"<{start}>{join(children)}</{tag}>")


def table(
    caption: str,
    header: Sequence[Child],
    rows: Sequence[Sequence[Child]],
    total: Sequence[Child] | None = None,
    *,
    most: int = 15,
    class_: str | None = None,
    is_said: bool = False,
) -> Markup:
    """Return a table that scrolls in its own box where the page is narrow.

    The first cell of a row is its header. Rows beyond `most` are in a part that opens on demand.
    `is_said` hides a caption that the title of the figure says already, but for screen readers.
    """

    def line(cells: Sequence[Child]) -> Markup:
        first, *others = cells
        return element("tr", element("th", first, scope="row"), [element("td", c) for c in others])

    def part(caption: str, rows: Sequence[Sequence[Child]], *, last: bool) -> Markup:
        whole = element(
            "table",
            element("caption", caption, class_="said" if is_said else None),
            element("thead", element("tr", [element("th", name, scope="col") for name in header])),
            element("tbody", map(line, rows)),
            last and total is not None and element("tfoot", line(total)),
            class_=class_,
        )
        return element("div", whole, class_="scroll", role="region", aria_label=caption, tabindex=0)

    first, others = (rows, ()) if len(rows) <= most + 3 else (rows[:most], rows[most:])
    if not others:
        return part(caption, first, last=True)
    more = part(f"{caption}: the others", others, last=False)
    fold = element("details", element("summary", f"{len(others)} more rows"), more)
    return join((part(caption, first, last=True), fold))


def figure(title: str, means: Child, *content: Child, action: Child = None) -> Markup:
    """Return a figure: its title, what it means, its content, and what to do about it."""
    return element(
        "figure",
        element("figcaption", element("h3", title), element("p", means)),
        content,
        action and element("p", element("strong", "What to do: "), action, class_="action"),
    )


class Section(NamedTuple):
    """A part of the page that the list of contents leads to."""

    name: str
    title: str
    markup: Markup


def section(name: str, title: str, *content: Child) -> Section:
    """Return a part of the page; a text in it becomes a paragraph."""
    heading = element("h2", title, id=f"{name}-title")
    plain = [
        element("p", one, class_="note")
        if isinstance(one, str) and not isinstance(one, Markup)
        else one
        for one in content
    ]
    whole = element("section", heading, plain, id=name, aria_labelledby=f"{name}-title")
    return Section(name, title, whole)


def paragraphs(texts: Iterable[Child]) -> Markup:
    """Return notes, each as a paragraph."""
    return join([element("p", text, class_="note") for text in texts])
