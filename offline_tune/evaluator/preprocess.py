"""From a table of numbers, categories, dates and texts to one matrix of numbers, learnt inside the fold.

`preprocessing` gives the steps that stand before a model in a Pipeline, so whatever they learn (medians, scales,
vocabularies, target means) comes from the training part of a fold only. They take missing cells, categories that were
never seen, columns that are empty in one fold, and infinite numbers.

Every transformer here is a plain importable class with scikit-learn's interface that holds only arrays, numbers,
texts and scikit-learn objects, so an exported pipeline can be read back under an allow-list.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import f_classif, f_regression
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, QuantileTransformer, StandardScaler, TargetEncoder

from offline_tune.errors import DataError
from offline_tune.evaluator.families.base import Needs
from offline_tune.space import Values
from offline_tune.task import Column, ColumnKind, TaskKind

LARGEST = 1e30  # its square still fits a float64, itself a float32
MOST_ONEHOT_COLUMNS = 512  # over all categorical columns together
MOST_CATEGORIES = 50  # one-hot columns of one category; the rarer ones share the last
MOST_CODES = 200  # histogram boosting accepts 255 native categories at most
MOST_WORDS = 20_000
MOST_DENSE_WORDS = 5_000
MOST_QUANTILES = 256
TARGET_FOLDS = 5

_NUMBERS = (ColumnKind.NUMERIC, ColumnKind.BOOLEAN)


def preprocessing(
    columns: Sequence[Column], kind: TaskKind, needs: Needs, values: Values, seed: int
) -> list[tuple[str, Any]]:
    """The steps before the model.

    Args:
        columns: the features a model may see.
        kind: what is learnt; target encoding and feature selection ask.
        needs: of the family.
        values: the candidate with unprefixed names; a choice that is absent takes the family's default.
        seed: of the random parts (target encoding, text summary).

    Returns:
        Named steps. Their output is a float matrix (dense, or sparse where the family takes sparse text), columns
        that hold category codes last.

    Raises:
        DataError: there is no feature.
    """
    branches = [
        ("numbers", _numbers(needs, values), _named(columns, *_NUMBERS)),
        ("dates", Pipeline([("parts", DateParts()), *_number_steps(needs, values)]), _named(columns, ColumnKind.DATE)),
        *((f"text{i}", _text(needs, values, seed), name) for i, name in enumerate(_named(columns, ColumnKind.TEXT))),
        ("categories", _categories(columns, kind, needs, values, seed), _named(columns, ColumnKind.CATEGORICAL)),
    ]
    used = [branch for branch in branches if branch[2]]
    if not used:
        raise DataError("a model needs at least one usable column, got none; keep one that varies and is no identifier")
    steps: list[tuple[str, Any]] = [("columns", ColumnTransformer(used, sparse_threshold=1.0, n_jobs=1))]
    if "select" in values:
        steps.append(("select", Strongest(float(values["select"] or 1.0), kind.is_classification)))
    return [*steps, ("cast", Cast(needs.dtype))]


def encoding_of(needs: Needs, values: Values) -> str:
    """The candidate's way of encoding categories, or the family's default."""
    return str(values.get("encoding", needs.encodings[0]))


class Numbers(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Columns as float64: missing or infinite cells become NaN, magnitudes end at 1e30."""

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:
        """Learn nothing."""
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Shape (n, d) in, (n, d) out."""
        numbers = X.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
        numbers[np.isinf(numbers)] = np.nan
        return np.clip(numbers, -LARGEST, LARGEST, out=numbers)

    def __sklearn_is_fitted__(self) -> bool:
        return True


class DateParts(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Each date as year, month, day, weekday (Monday is 0), hour of the day and days since 1970; NaN where missing."""

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:
        """Learn nothing."""
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Shape (n, d) in, (n, 6 d) out."""
        return np.hstack([_date_parts(X.iloc[:, place]) for place in range(X.shape[1])])

    def __sklearn_is_fitted__(self) -> bool:
        return True


class Labels(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Categories as an object array of texts, NaN where missing, which is what the encoders understand."""

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:
        """Learn nothing."""
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[np.object_]:
        """Shape (n, d) in, (n, d) out."""
        labels = X.to_numpy(dtype=object, copy=True)
        missing = pd.isna(X).to_numpy()
        labels[~missing] = [str(label) for label in labels[~missing]]
        labels[missing] = np.nan
        return np.asarray(labels)

    def __sklearn_is_fitted__(self) -> bool:
        return True


class SquashedScale(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Centre on the median, divide by the quartile range, and squeeze what lies far out smoothly into (-3, 3).

    Where half of a column is one value the full range takes the quartile range's place. After RealMLP (Holzmüller,
    Grinsztajn and Steinwart, "Better by Default", 2024).
    """

    def fit(self, X: NDArray[np.float64], y: object = None) -> Self:
        """Learn median and spread of each column of X (n, d), which has no missing cells."""
        low, self.center_, high = np.quantile(X, (0.25, 0.5, 0.75), axis=0)
        spread = high - low
        spread = np.where(spread > 0, spread, np.ptp(X, axis=0) / 2)
        self.scale_ = np.where(spread > 0, spread, 1.0)
        return self

    def transform(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shape (n, d) in, (n, d) out."""
        scaled = (X - self.center_) / self.scale_
        return np.asarray(scaled / np.sqrt(1 + (scaled / 3) ** 2))


class Ranks(QuantileTransformer):  # type: ignore[misc]
    """scikit-learn's quantile map to [0, 1], content with fewer rows than quantiles."""

    def fit(self, X: NDArray[np.float64], y: object = None) -> Self:
        """Learn the quantiles of X (n, d)."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "n_quantiles .* is greater than the total number of samples")
            super().fit(X)
        return self


class TargetMeans(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """scikit-learn's cross-fitted target encoder, content with classes rarer than its folds.

    `target_type` is "binary", "multiclass" or "continuous"; said, not guessed, because ratings are numbers too.
    """

    def __init__(self, target_type: str, seed: int = 0) -> None:
        self.target_type = target_type
        self.seed = seed

    def fit(self, X: NDArray[np.object_], y: NDArray[Any]) -> Self:
        """Learn the mean of y (n,) for each category of X (n, d)."""
        self.encoder_ = TargetEncoder(target_type=self._type_here(y)).fit(X, y)
        return self

    def fit_transform(self, X: NDArray[np.object_], y: NDArray[Any]) -> NDArray[np.float64]:
        """Encode the training rows by means of parts that do not hold them."""
        encoder = TargetEncoder(target_type=self._type_here(y), cv=self._folds(y))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class in y has only")
            encoded = np.asarray(encoder.fit_transform(X, y))
        self.encoder_ = encoder.set_params(cv=TARGET_FOLDS)  # a plain number is all that need be stored
        return encoded

    def transform(self, X: NDArray[np.object_]) -> NDArray[np.float64]:
        """Shape (n, d) in, (n, d) out, or (n, d c) for c > 2 classes; the overall mean for unseen categories."""
        return np.asarray(self.encoder_.transform(X))

    def _type_here(self, y: NDArray[Any]) -> str:
        # With two of several classes in a training part the task is binary there, and so must the encoder see it.
        return "binary" if self.target_type != "continuous" and len(np.unique(y)) == 2 else self.target_type

    def _folds(self, y: NDArray[Any]) -> KFold | StratifiedKFold:
        if self.target_type == "continuous":
            return KFold(min(TARGET_FOLDS, len(y)), shuffle=True, random_state=self.seed)
        most = int(np.unique(y, return_counts=True)[1].max())
        return StratifiedKFold(max(2, min(TARGET_FOLDS, most)), shuffle=True, random_state=self.seed)


class Words(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One column of free text as tf-idf weights, or as `components` numbers that summarise them; and its length.

    A column without a single usable word gives its length only.
    """

    def __init__(self, ngrams: int = 1, components: int = 0, seed: int = 0) -> None:
        self.ngrams = ngrams
        self.components = components
        self.seed = seed

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn the vocabulary of X (n,), and the components if wanted."""
        texts = _texts(X)
        most = MOST_DENSE_WORDS if self.components else MOST_WORDS
        vectorizer = TfidfVectorizer(
            ngram_range=(1, self.ngrams),
            max_features=most,
            min_df=2 if len(texts) >= 100 else 1,
            sublinear_tf=True,
            dtype=np.float32,
        )
        self.vectorizer_ = _vocabulary(vectorizer, texts)
        self.svd_: Any = None
        if self.vectorizer_ is not None and self.components:
            self._fit_components(self.vectorizer_.transform(texts))
        return self

    def transform(self, X: Any) -> Any:
        """Shape (n,) in, (n, words + 1) sparse or (n, components + 1) dense out; the last column is the length."""
        texts = _texts(X)
        length = np.log1p([[len(text)] for text in texts]).astype(np.float32)
        if self.vectorizer_ is None:
            return length
        weights = self.vectorizer_.transform(texts)
        if self.svd_ is None:
            # A tenth of the logarithm keeps the length on the scale of the weights, which lie in [0, 1].
            return sparse.hstack([weights, sparse.csr_matrix(length / 10)], format="csr")
        return np.hstack([self.svd_.transform(weights), length])

    def _fit_components(self, weights: Any) -> None:
        size = min(self.components, *(side - 1 for side in weights.shape))
        if size < 1:
            self.vectorizer_ = None
            return
        with np.errstate(all="ignore"):  # texts that are all alike have no variance to explain
            self.svd_ = TruncatedSVD(n_components=size, random_state=self.seed).fit(weights)


class Strongest(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The share of columns most strongly related to the target, by the F statistic; at least one."""

    def __init__(self, share: float, is_classification: bool) -> None:
        self.share = share
        self.is_classification = is_classification

    def fit(self, X: Any, y: NDArray[Any]) -> Self:
        """Rank the columns of X (n, d) by y (n,)."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.filterwarnings("ignore", "Features .* are constant")
            scores = (f_classif if self.is_classification else f_regression)(X, y)[0]
        keep = max(1, round(self.share * X.shape[1]))
        best = np.argsort(-np.nan_to_num(scores, nan=-1.0), kind="stable")[:keep]
        self.columns_ = np.sort(best)
        return self

    def transform(self, X: Any) -> Any:
        """Shape (n, d) in, (n, kept) out."""
        return X[:, self.columns_]


class Cast(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The matrix in the number type of the family, without names.

    A column without a single value in the training part becomes zero: nothing can be learnt from it, and not every
    model bears it.
    """

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = dtype

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn which columns of X (n, d) are empty; sparse ones never are."""
        self.empty_ = np.zeros(X.shape[1], dtype=bool) if sparse.issparse(X) else np.isnan(X).all(axis=0)
        return self

    def transform(self, X: Any) -> Any:
        """Shape (n, d) in, (n, d) out; a sparse matrix becomes CSR."""
        if sparse.issparse(X):
            return X.tocsr().astype(self.dtype)
        matrix = np.array(X, dtype=self.dtype, order="C")
        matrix[:, self.empty_] = 0
        return matrix


def _named(columns: Sequence[Column], *kinds: ColumnKind) -> list[str]:
    return [column.name for column in columns if column.kind in kinds]


def _numbers(needs: Needs, values: Values) -> Pipeline:
    return Pipeline([("numbers", Numbers()), *_number_steps(needs, values)])


def _number_steps(needs: Needs, values: Values) -> list[tuple[str, Any]]:
    if not needs.complete:
        return []
    impute = SimpleImputer(strategy=str(values.get("imputing", "median")), add_indicator=True, keep_empty_features=True)
    return [("impute", impute), *(_scaling(str(values.get("scaling", needs.scalings[0]))) if needs.scaled else [])]


def _scaling(name: str) -> list[tuple[str, Any]]:
    if name == "robust":
        return [("scale", SquashedScale())]
    if name == "quantile":
        return [("ranks", Ranks(n_quantiles=MOST_QUANTILES, random_state=0)), ("scale", StandardScaler())]
    return [("scale", StandardScaler())]


def _categories(columns: Sequence[Column], kind: TaskKind, needs: Needs, values: Values, seed: int) -> Pipeline:
    n_columns = max(1, len(_named(columns, ColumnKind.CATEGORICAL)))
    encoding = encoding_of(needs, values)
    steps: list[tuple[str, Any]] = [("labels", Labels())]
    if encoding == "onehot":
        most = min(MOST_CATEGORIES, max(4, MOST_ONEHOT_COLUMNS // n_columns))
        options = {"handle_unknown": "infrequent_if_exist", "max_categories": most, "sparse_output": needs.sparse}
        return Pipeline([*steps, ("encode", OneHotEncoder(**options, dtype=getattr(np, needs.dtype)))])
    if encoding == "target":
        target_type = "continuous" if kind is TaskKind.REGRESSION else kind.value
        steps.append(("encode", TargetMeans(target_type, seed)))
        return Pipeline([*steps, *([("scale", StandardScaler())] if needs.scaled else [])])
    options = {"handle_unknown": "use_encoded_value", "unknown_value": np.nan, "encoded_missing_value": np.nan}
    most_codes = MOST_CODES if encoding == "native" else None
    return Pipeline([*steps, ("encode", OrdinalEncoder(**options, max_categories=most_codes))])


def _text(needs: Needs, values: Values, seed: int) -> Words:
    ngrams = int(values.get("text_ngrams") or 1)
    return Words(ngrams, 0 if needs.sparse else int(values.get("text_components") or 32), seed)


def _texts(X: Any) -> list[str]:
    return ["" if pd.isna(text) else str(text) for text in np.asarray(X, dtype=object).ravel()]


def _vocabulary(vectorizer: TfidfVectorizer, texts: list[str]) -> TfidfVectorizer | None:
    try:
        return vectorizer.fit(texts)
    except ValueError:  # no word at all, or none in two rows
        return None


def _date_parts(column: pd.Series) -> NDArray[np.float64]:
    dates = pd.DatetimeIndex(pd.to_datetime(column, errors="coerce")).tz_localize(None)
    days = (dates.to_numpy() - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")
    parts = (dates.year, dates.month, dates.day, dates.day_of_week, days % 1 * 24, days)
    return np.column_stack([np.asarray(part, dtype=np.float64) for part in parts])
