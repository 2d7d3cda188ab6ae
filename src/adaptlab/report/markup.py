"""The table of results for Markdown, LaTeX and notebooks: texts escaped, what is tied with the best in bold."""

from __future__ import annotations

from collections.abc import Iterable

from adaptlab.report._html import Html, element
from adaptlab.report.answer import answer
from adaptlab.report.select import Selection
from adaptlab.report.tables import results_grid


def markdown(selection: Selection) -> str:
    """The answer, the results as a Markdown table, and its notes."""
    grid, said = results_grid(selection), answer(selection)
    lines = [f"# {_markdown_text(' + '.join(selection.studies))}", ""]
    if grid.lines:
        lines += [_markdown_text(said.lead), "", *(f"- {_markdown_text(detail)}" for detail in said.details)]
        lines += [""] if said.details else []
    if grid.lines:
        lines.append(_markdown_line(_markdown_text(column.title) for column in grid.columns))
        lines.append(_markdown_line("---:" if column.number else ":---" for column in grid.columns))
        for entries in grid.lines:
            texts = [(_markdown_text(entry.text), entry.best) for entry in entries]
            lines.append(_markdown_line(f"**{text}**" if best else text for text, best in texts))
        lines.append("")
    notes = (*(said.doubts if grid.lines else ()), *grid.notes, *grid.left_out)
    return "\n".join(lines) + "\n" + "\n\n".join(_markdown_text(note) for note in notes) + "\n"


def _markdown_line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _markdown_text(text: str) -> str:
    flat = " ".join(text.split())
    for character in "\\|*_<>[]&":
        flat = flat.replace(character, "&amp;" if character == "&" else f"\\{character}")
    return flat


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def latex(selection: Selection) -> str:
    """The results as a LaTeX ``table`` for the package booktabs, its notes as a caption."""
    grid = results_grid(selection)
    if not grid.lines:
        return "".join(f"% {' '.join(note.split())}\n" for note in grid.notes + grid.left_out)
    shape = "".join("r" if column.number else "l" for column in grid.columns)
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{shape}}}", r"\toprule"]
    lines.append(" & ".join(latex_text(column.title) for column in grid.columns) + r" \\")
    lines.append(r"\midrule")
    for entries in grid.lines:
        texts = [(latex_text(entry.text), entry.best) for entry in entries]
        lines.append(" & ".join(rf"\textbf{{{text}}}" if best else text for text, best in texts) + r" \\")
    caption = " ".join(latex_text(note) for note in grid.notes + grid.left_out)
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """``text`` with every character that LaTeX would interpret escaped, on one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def html_answer(selection: Selection) -> Html:
    """The answer as a fragment of HTML."""
    said = answer(selection)
    details = element("ul", [element("li", detail) for detail in said.details]) if said.details else None
    doubts = element("p", element("em", " ".join(said.doubts))) if said.doubts else None
    return element("div", element("p", element("strong", said.lead)), details, doubts)


def html_table(selection: Selection) -> Html:
    """The table of results and its notes as a fragment of HTML, for a notebook."""
    grid = results_grid(selection)
    notes = element("div", [element("p", element("small", note)) for note in (*grid.notes, *grid.left_out)])
    if not grid.lines:
        return notes
    head = [element("th", column.title, scope="col") for column in grid.columns]
    lines = [
        element("tr", [element("td", element("strong", entry.text) if entry.best else entry.text) for entry in line])
        for line in grid.lines
    ]
    table = element("table", element("thead", element("tr", head)), element("tbody", lines))
    return element("div", table, notes)
