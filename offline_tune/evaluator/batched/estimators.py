"""Networks behind scikit-learn's interface: trained alone as a stack of one, or fitted in a stack and handed over.

Light to import, for an exported model is read back by way of this module: torch comes with the first fit or
prediction. What is fitted are numpy arrays, numbers and texts, so a member is written without pickle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from offline_tune.evaluator.batched.table import Table
from offline_tune.space import Value

if TYPE_CHECKING:
    from offline_tune.evaluator.batched.run import Run


class _Network(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share.

    Attributes:
        kind: name of the family, such as "tabular_mlp".
        values: the candidate with unprefixed names; preprocessing choices are ignored.
        seed: of initial weights and dropout.
        epochs: the most passes over the rows; None for `neural.default_epochs`.
        weights_: fitted parameters by name.
        curve_: validation loss after each epoch; empty where rows are too few to keep some back.
    """

    def __init__(self, kind: str, values: dict[str, Value], seed: int = 0, epochs: int | None = None) -> None:
        self.kind = kind
        self.values = values
        self.seed = seed
        self.epochs = epochs

    def _fit(self, X: Any, y: NDArray[Any], *, is_classifier: bool) -> Self:
        from offline_tune.evaluator.batched.alone import fit_alone

        table = Table.of(X, y, is_classifier=is_classifier)
        return self.take(table, fit_alone(self.kind, self.values, table, self.seed, self.epochs))

    def take(self, table: Table, run: Run) -> Self:
        """Become the model that a run has trained on a table.

        Raises:
            Diverged: training ended before there were any numbers worth keeping.
        """
        from offline_tune.evaluator.batched.run import kept_numbers

        self.weights_ = {name: value.numpy() for name, value in kept_numbers(run).items()}
        self.columns_, self.n_numbers_, self.n_outputs_ = table.columns, table.n_numbers, table.n_outputs
        self.curve_ = list(run.losses)
        if table.classes is not None:
            self.classes_ = table.classes
        self.center_, self.scale_ = table.center, table.scale
        return self

    def _outputs(self, X: Any, *, is_classifier: bool) -> NDArray[np.float64]:
        from offline_tune.evaluator.batched.alone import predict_alone
        from offline_tune.evaluator.batched.design import network_of

        network = network_of(
            self.kind, self.values, len(self.columns_), self.n_outputs_, self.n_numbers_, is_classifier
        )
        return predict_alone(network, self.weights_, np.asarray(X, dtype=np.float32)[:, self.columns_])


class NetworkClassifier(ClassifierMixin, _Network):  # type: ignore[misc]
    """A classifier; `classes_` are the labels that the training part had."""

    def fit(self, X: Any, y: NDArray[Any]) -> Self:
        """Train on X (n, d), y (n,) of any labels.

        Raises:
            ValueError: one class only, or values that no network could use.
        """
        return self._fit(X, y, is_classifier=True)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities in the order of `classes_`, shape (n, len(classes_))."""
        return self._outputs(X, is_classifier=True)

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest label of each row, shape (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


class NetworkRegressor(RegressorMixin, _Network):  # type: ignore[misc]
    """A regressor, trained on the target centred and scaled to unit deviation."""

    def fit(self, X: Any, y: NDArray[Any]) -> Self:
        """Train on X (n, d), y (n,).

        Raises:
            ValueError: values that no network could use.
        """
        return self._fit(X, y, is_classifier=False)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predicted targets in their own unit, shape (n,)."""
        return self._outputs(X, is_classifier=False) * self.scale_ + self.center_
