"""The three files of a report, written beside the run."""

from __future__ import annotations

from pathlib import Path

from offline_tune.report.facts import Report, read
from offline_tune.report.html import render
from offline_tune.report.leaderboard import csv_text
from offline_tune.report.text import summary
from offline_tune.study.folder import RunFolder
from offline_tune.study.folder import writing as write_errors


def write(folder: RunFolder) -> Report:
    """Write report.html, summary.txt and leaderboard.csv, each whole or not at all.

    Raises:
        UsageError: the folder holds no run.
        StudyError: the run has no result yet, or something in it is damaged.
        OutputError: a file cannot be written.
    """
    report = read(folder)
    contents = ((folder.leaderboard, csv_text(report)), (folder.summary, summary(report)))
    for path, content in (*contents, (folder.report, render(report))):
        _replace(path, content)
    return report


def _replace(path: Path, content: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with write_errors(path):
        try:
            # A lone surrogate (from a name in JSON) has no UTF-8 form; it becomes a question mark.
            partial.write_bytes(content.encode(errors="replace"))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
