"""How a metric is shown: its plain name, its direction, and a score in its own unit.

Inside the package every score is greater-is-better, as scikit-learn's scorers are; a person reads `neg_log_loss` of
-0.2794 as a log loss of 0.2794, lower is better. Whatever shows a score asks here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from offline_tune.report.wording import printable

_NEGATED = "neg_"
_WORDS = {
    "auc": "AUC",
    "brier": "Brier",
    "d2": "D²",
    "f1": "F1",
    "ovo": "one versus one",
    "ovr": "one versus rest",
    "r2": "R²",
    "roc": "ROC",
}


@dataclass(frozen=True, slots=True)
class ShownMetric:
    """One scorer as a person reads it. `name` is the scorer's own name."""

    name: str

    @property
    def lower_is_better(self) -> bool:
        """Whether the shown number is a loss."""
        return self.name.startswith(_NEGATED)

    @property
    def column(self) -> str:
        """The scorer's name without its sign, for tables that machines read."""
        return self.name.removeprefix(_NEGATED)

    @property
    def title(self) -> str:
        """The plain name.

        >>> ShownMetric("neg_log_loss").title, ShownMetric("roc_auc_ovr").title
        ('log loss', 'ROC AUC one versus rest')
        """
        return printable(" ".join(_WORDS.get(word, word) for word in self.column.split("_")))

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "lower is better" if self.lower_is_better else "higher is better"

    def value(self, score: float) -> float:
        """A score with the sign that is shown."""
        return 0.0 - score if self.lower_is_better else score

    def text(self, score: float | None) -> str:
        """A score to four decimals, or five significant digits where it is large or tiny.

        >>> ShownMetric("neg_log_loss").text(-0.279441)
        '0.2794'
        """
        return "-" if score is None or math.isnan(score) else size_text(self.value(score))

    def gain(self, score: float | None, baseline: float | None) -> str:
        """How much better a score is than another, in words; empty where one is missing.

        >>> ShownMetric("neg_log_loss").gain(-0.27, -0.30)
        'better by 0.0300 (10.0 %)'
        """
        if score is None or baseline is None or not math.isfinite(score - baseline):
            return ""
        difference = score - baseline
        if difference == 0:
            return "equal"
        word = "better" if difference > 0 else "worse"
        # A share means something for a loss, whose best is zero; not for an accuracy or an R².
        share = f" ({abs(difference / baseline):.1%})".replace("%", " %") if self.lower_is_better and baseline else ""
        return f"{word} by {size_text(abs(difference))}{share}"


def size_text(size: float) -> str:
    """A score, or a difference of scores, short.

    >>> size_text(0.5), size_text(48231.77), size_text(0.00002)
    ('0.5000', '48232', '2e-05')
    """
    if 0 < abs(size) < 1e-3 or abs(size) >= 1000:
        return f"{size:.5g}" if abs(size) >= 1 else f"{size:.2g}"
    return f"{size:.4f}" if abs(size) < 10 else f"{size:.2f}"
