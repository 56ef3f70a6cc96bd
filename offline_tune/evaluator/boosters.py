"""XGBoost, LightGBM and CatBoost models in their own file formats: bytes out, a predicting model back.

The vendors' formats are documented, stable over versions, and hold numbers only, so reading one runs no code. A
damaged XGBoost file can still end the process or fill its memory: check a file's digest before it is read.
Beside the file stand a few facts in JSON: which wrapper it was, and the wrapper's plain parameters.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_tune.errors import ArtifactError

Facts = Mapping[str, Any]

_WRAPPERS = {
    "xgboost.sklearn": ("XGBClassifier", "XGBRegressor"),
    "lightgbm.sklearn": ("LGBMClassifier", "LGBMRegressor"),
    "catboost.core": ("CatBoostClassifier", "CatBoostRegressor"),
}
_SUFFIXES = {"xgboost": "ubj", "lightgbm": "txt", "catboost": "cbm"}


@dataclass(frozen=True, slots=True)
class BoosterFile:
    """A fitted booster: the vendor's file, and what its scikit-learn wrapper knew."""

    vendor: str
    content: bytes
    facts: Facts

    @property
    def name(self) -> str:
        """The file's usual name."""
        return f"booster.{_SUFFIXES[self.vendor]}"


def is_booster(estimator: object) -> bool:
    """Whether this is one of the three vendors' scikit-learn wrappers."""
    kind = type(estimator)
    return kind.__name__ in _WRAPPERS.get(kind.__module__, ())


def written(estimator: Any) -> BoosterFile:
    """The fitted booster as a file."""
    kind = type(estimator)
    vendor = kind.__module__.partition(".")[0]
    content = {"xgboost": _xgboost_bytes, "lightgbm": _lightgbm_bytes, "catboost": _catboost_bytes}[vendor](estimator)
    parameters = {name: value for name, value in estimator.get_params().items() if _is_plain(value)}
    return BoosterFile(vendor, content, {"class": kind.__name__, "parameters": parameters})


def read(vendor: str, content: bytes, facts: Facts) -> Any:
    """A model that predicts as the one that was written.

    Raises:
        ArtifactError: an unknown vendor or class, or a file that the vendor cannot read.
    """
    names = [name for module, known in _WRAPPERS.items() if module.startswith(f"{vendor}.") for name in known]
    if facts.get("class") not in names:
        raise ArtifactError(
            f"a booster must be of a known class, got {str(facts.get('class'))[:60]!r}; export it again"
        )
    reader = {"xgboost": _xgboost_model, "lightgbm": _lightgbm_model, "catboost": _catboost_model}[vendor]
    if not content:
        raise ArtifactError(f"{vendor} must be able to read its own file, got an empty one; export it again")
    try:
        return reader(content, str(facts["class"]), dict(facts["parameters"]))
    except Exception as error:  # noqa: BLE001  # each vendor has its own way to say that a file is damaged
        reason = " ".join(str(error).split())[:100]
        raise ArtifactError(f"{vendor} must be able to read its own file, got {reason!r}; export it again") from None


class LightGBMModel:
    """A LightGBM booster that was read back, with the two methods of its scikit-learn wrapper."""

    def __init__(self, booster: Any, is_classifier: bool) -> None:
        self.booster = booster
        self._is_classifier = is_classifier

    def predict(self, X: Any) -> NDArray[Any]:
        """Numbers of a regressor, or codes of the likeliest class; shape (n,)."""
        if self._is_classifier:
            return np.asarray(self.predict_proba(X).argmax(axis=1))
        return np.asarray(self.booster.predict(X, num_threads=1))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities, shape (n, c)."""
        found = np.asarray(self.booster.predict(X, num_threads=1))
        return found if found.ndim == 2 else np.column_stack([1.0 - found, found])


def _xgboost_bytes(estimator: Any) -> bytes:
    return bytes(estimator.get_booster().save_raw(raw_format="ubj"))


def _xgboost_model(content: bytes, name: str, parameters: dict[str, Any]) -> Any:
    import xgboost

    model = getattr(xgboost, name)(**parameters)
    model.load_model(bytearray(content))
    return model


def _lightgbm_bytes(estimator: Any) -> bytes:
    text: str = estimator.booster_.model_to_string(num_iteration=estimator.booster_.best_iteration)
    return text.encode()


def _lightgbm_model(content: bytes, name: str, parameters: dict[str, Any]) -> Any:
    import lightgbm

    return LightGBMModel(lightgbm.Booster(model_str=content.decode()), name == "LGBMClassifier")


def _catboost_bytes(estimator: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="offline-tune-") as folder:
        file = Path(folder) / "booster.cbm"
        estimator.save_model(str(file), format="cbm")
        return file.read_bytes()


def _catboost_model(content: bytes, name: str, parameters: dict[str, Any]) -> Any:
    import catboost

    return getattr(catboost, name)().load_model(blob=content, format="cbm")


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
