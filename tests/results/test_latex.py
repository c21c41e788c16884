"""Tables as LaTeX."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from dolglab.results.comparison_tables import summarize
from dolglab.results.published import published_summary
from dolglab.results.table_formats import escape_latex, to_latex


@pytest.fixture
def latex(make_card_of, make_ranking):
    first = make_ranking(maps=(0.9, 0.8, 0.5))
    for scores in first.evaluation.values():
        scores["ap"] = np.array([0.2, 0.8])
    cards = [make_card_of("50% & #1_{x}~^\\ [a]", first), make_card_of("*GeM* $5 <b>|", make_ranking(crop="none"))]
    return to_latex([summarize(cards), published_summary()])


def test_special_characters_of_latex_are_escaped():
    assert escape_latex("50% & #1_{x}~^\\ $") == (
        r"50\% \& \#1\_\{x\}\textasciitilde{}\textasciicircum{}\textbackslash{} \$"
    )
    assert escape_latex("a–b − <i>|\n[*]") == r"a--b $-$ \textless{}i\textgreater{}\textbar{} {[}{*}{]}"  # noqa: RUF001


def test_every_row_has_the_declared_columns(latex):
    tables = re.findall(r"\\begin{tabular}{(l r*|lr*)}(.*?)\\end{tabular}", latex, re.DOTALL)
    assert len(tables) == 4
    for columns, body in tables:
        rows = [line for line in body.splitlines() if re.search(r"\\\\(\[-?2pt\])?$", line)]
        for row in rows:
            spanned = sum(int(number) - 1 for number in re.findall(r"\\multicolumn{(\d+)}", row))
            assert len(re.findall(r"(?<!\\)&", row)) + 1 + spanned == len(columns), row


def test_figures_intervals_and_notes(latex):
    assert (
        r"50\% \& \#1\_\{x\}\textasciitilde{}\textasciicircum{}\textbackslash{} {[}a{]}$^{1}$ & \textbf{90.00}" in latex
    )
    assert r"\cmidrule(lr){2-4}" in latex
    assert r"{\scriptsize 20.0--80.0}" in latex
    assert "$^{3}$ queries not cropped\\par" in latex
    assert r"\caption{Published, on ROxford5k / RParis6k (not measured here): Mean average precision, \%}" in latex
    assert r"\textbf{85.48}" in latex


@pytest.mark.process
def test_the_document_compiles(latex, tmp_path):
    if shutil.which("pdflatex") is None or not _has_booktabs():
        pytest.skip("pdflatex with booktabs is not installed")
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + latex + "\\end{document}\n"
    (tmp_path / "table.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def _has_booktabs():
    found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False)
    return found.returncode == 0
