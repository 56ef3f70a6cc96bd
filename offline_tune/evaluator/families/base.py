"""What a family of models is: its card, what it asks of its input, its search space, and how it is built.

Light on purpose: a vendor (scikit-learn, XGBoost, LightGBM, CatBoost) is imported when a model is built, so that
spaces and cards can be shown without loading any of them.

Parameter names are shared wherever they mean the same in two families (`learning_rate`, `n_estimators`,
`min_samples_leaf`, `reg_lambda` ...), so that experience with one family carries over to the next.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from offline_tune.cards import DataCard, ModelCard
from offline_tune.space import Condition, Parameter, Value, Values
from offline_tune.task import TaskKind

Encoding = Literal["onehot", "ordinal", "target", "native"]

MOST_TARGET_CLASSES = 10  # target encoding makes one column for each class; beyond this the table grows too wide
LEAST_SELECTABLE = 8  # fewer features than this are not worth choosing among

PREPARATION: Mapping[str, str] = {
    "scaling": "how numbers are scaled: standard keeps outliers, robust squeezes them, quantile keeps ranks only",
    "encoding": "how categories become numbers: one column each, arbitrary codes, target means, or the model's own way",
    "imputing": "what replaces a missing number; an indicator column is added either way",
    "select": "share of the encoded columns kept, the most strongly related to the target first",
    "text_ngrams": "longest run of words counted as one text feature",
    "text_components": "numbers that summarise each text column",
}


class Builder(Protocol):
    """Makes the unfitted estimator of one candidate; the arguments are those of `Family.build`."""

    def __call__(self, values: Values, request: Request) -> Any:
        """The unfitted estimator."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a builder must know besides the candidate.

    `n_rows` are the rows it will be fitted on, `n_native` the trailing columns that hold category codes.
    """

    kind: TaskKind
    seed: int
    n_classes: int
    n_rows: int
    n_native: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a family asks of its input, beyond numbers.

    Attributes:
        encodings: ways to encode categories that suit it, the default first.
        complete: missing values must be imputed.
        scaled: numbers must be on one scale.
        scalings: ways to scale that suit it, the default first.
        sparse: text may arrive as a sparse matrix; otherwise it is summarised in a few dense columns.
        selects: gains from a choice of features.
        dtype: of the array it is given.
    """

    encodings: tuple[Encoding, ...]
    complete: bool = False
    scaled: bool = False
    scalings: tuple[str, ...] = ("standard", "robust", "quantile")
    sparse: bool = False
    selects: bool = False
    dtype: Literal["float32", "float64"] = "float32"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """One family of models.

    Attributes:
        card: what the family is, with one sentence for each of its parameters.
        needs: what its input must be like.
        search: its own parameters for a data card.
        builder: makes the estimator.
        suits: whether `auto` should try it on data of this size.
        kinds: the kinds of task it can learn.
        library: the package that it needs beyond those that come with the program, none for most.
    """

    card: ModelCard
    needs: Needs
    search: Callable[[DataCard], tuple[Parameter, ...]]
    builder: Builder
    suits: Callable[[DataCard], bool] = lambda card: True
    kinds: tuple[TaskKind, ...] = tuple(TaskKind)
    library: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether what it needs can be imported."""
        return self.library is None or importlib.util.find_spec(self.library) is not None

    @property
    def name(self) -> str:
        """How the family is called on the command line and in a candidate."""
        return self.card.family

    def parameters(self, card: DataCard) -> tuple[Parameter, ...]:
        """The search space for data like this: the model's own parameters, then those of its preprocessing."""
        return (*self.search(card), *preparation(self.needs, card))

    def build(
        self, values: Values, kind: TaskKind, seed: int, n_classes: int, *, n_rows: int = 1000, n_native: int = 0
    ) -> Any:
        """The unfitted estimator of a candidate: scikit-learn's interface, one thread, silent, no files.

        Args:
            values: the candidate with unprefixed names; preprocessing choices are ignored.
            kind: what is learnt.
            seed: any integer; the same seed gives the same model.
            n_classes: number of labels, 0 for regression.
            n_rows: rows it will be fitted on.
            n_native: the last columns hold category codes that the model treats in its own way.
        """
        request = Request(kind=kind, seed=seed % 2**31, n_classes=n_classes, n_rows=n_rows, n_native=n_native)
        return self.builder(values, request)


def described(family: str, summary: str, cost: str, hyperparameters: Mapping[str, str]) -> ModelCard:
    """A model card whose sentences include those of the preprocessing."""
    return ModelCard(family=family, summary=summary, cost=cost, hyperparameters={**hyperparameters, **PREPARATION})


def preparation(needs: Needs, card: DataCard) -> tuple[Parameter, ...]:
    """The preprocessing choices that matter for these data; none for columns that do not exist."""
    numbers = card.n_features - card.n_categorical - card.n_text
    encodings = offered_encodings(needs, card)
    several = card.n_categorical > 0 and card.max_cardinality not in (1, 2)  # two labels look alike in every encoding
    found = [
        (needs.scaled and numbers > 0, choice("scaling", needs.scalings)),
        (several and len(encodings) > 1, choice("encoding", encodings)),
        (needs.complete and numbers > 0 and card.missing_share > 0, choice("imputing", ("median", "mean"))),
        (needs.selects and card.n_features >= LEAST_SELECTABLE, share("select", 0.1, 1.0, default=1.0)),
        (card.n_text > 0, whole("text_ngrams", 1, 2, default=1)),
        (card.n_text > 0 and not needs.sparse, whole("text_components", 8, 128, default=32, log=True)),
    ]
    return tuple(parameter for wanted, parameter in found if wanted)


def offered_encodings(needs: Needs, card: DataCard) -> tuple[Encoding, ...]:
    """The encodings that suit both the family and the data."""
    many = card.n_classes > MOST_TARGET_CLASSES
    return tuple(encoding for encoding in needs.encodings if not (many and encoding == "target"))


def class_weight(card: DataCard) -> tuple[Parameter, ...]:
    """The choice to weigh rare classes up, where the classes are uneven enough for it to matter."""
    uneven = card.kind.is_classification and card.imbalance * card.n_classes > 1.2
    return (choice("class_weight", ("none", "balanced")),) if uneven else ()


def most_trees(card: DataCard, most: int) -> int:
    """An upper bound on boosting rounds: each round grows one tree for each class, so many classes get fewer."""
    return max(100, most * 3 // max(card.n_classes, 3) // 10 * 10)


def choice(name: str, choices: tuple[str, ...]) -> Parameter:
    """A categorical parameter; the first choice is the default."""
    return Parameter(name, CategoricalDistribution(choices), default=choices[0])


def whole(name: str, low: int, high: int, *, default: int, log: bool = False) -> Parameter:
    """An integer parameter."""
    return Parameter(name, IntDistribution(low, high, log=log), default=default)


def positive(name: str, low: float, high: float, *, default: float) -> Parameter:
    """A positive number on a log scale."""
    return Parameter(name, FloatDistribution(low, high, log=True), default=default)


def share(name: str, low: float, high: float, *, default: float) -> Parameter:
    """A share of something, in steps of 0.05."""
    return Parameter(name, FloatDistribution(low, high, step=0.05), default=default)


def under(parameter: Parameter, parent: str, *values: Value) -> Parameter:
    """The same parameter, alive only while `parent` has one of `values`."""
    return replace(parameter, when=Condition(parent, values))


def real(values: Values, name: str) -> float:
    """A number of the candidate."""
    value = values[name]
    assert isinstance(value, int | float)
    return float(value)


def integer(values: Values, name: str) -> int:
    """A whole number of the candidate."""
    return round(real(values, name))


def is_balanced(values: Values) -> bool:
    """Whether the candidate weighs rare classes up."""
    return values.get("class_weight") == "balanced"
