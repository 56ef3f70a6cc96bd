"""Reports of finished runs: text for a terminal, a table for programs, one HTML file for a browser."""

from offline_tune.report.facts import Report, read
from offline_tune.report.html import render
from offline_tune.report.leaderboard import table
from offline_tune.report.text import summary
from offline_tune.report.writing import write

__all__ = ["Report", "read", "render", "summary", "table", "write"]
