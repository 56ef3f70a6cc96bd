"""One fitted pipeline as a few named files, and back: skops for the pipeline, the vendor's own format for a booster.

skops rebuilds Python objects from a description, and only those of types that it trusts or that stand in `TRUSTED`.
The list is fixed here; a file cannot widen it, and a pipeline that it does not cover cannot be written either.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from offline_tune.errors import ArtifactError
from offline_tune.evaluator import boosters

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Files = Mapping[str, bytes]

PIPELINE, BOOSTER = "pipeline.skops", "booster.json"

TRUSTED = (
    "functools.partial",
    "numpy.clip",
    "numpy.dtype",
    "offline_tune.evaluator.batched.estimators.NetworkClassifier",
    "offline_tune.evaluator.batched.estimators.NetworkRegressor",
    "offline_tune.evaluator.families.estimators.VendorClassifier",
    "offline_tune.evaluator.families.estimators.VendorRegressor",
    "offline_tune.evaluator.preprocess.Cast",
    "offline_tune.evaluator.preprocess.DateParts",
    "offline_tune.evaluator.preprocess.Labels",
    "offline_tune.evaluator.preprocess.Numbers",
    "offline_tune.evaluator.preprocess.Ranks",
    "offline_tune.evaluator.preprocess.SquashedScale",
    "offline_tune.evaluator.preprocess.Strongest",
    "offline_tune.evaluator.preprocess.TargetMeans",
    "offline_tune.evaluator.preprocess.Words",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
)


def files_of(pipeline: Pipeline) -> dict[str, bytes]:
    """A fitted pipeline as files, by their names.

    Raises:
        ArtifactError: a part is of a type that could not be read back.
    """
    skeleton, booster = _taken_apart(pipeline)
    files = {PIPELINE: to_skops(skeleton)}
    if booster is not None:
        files[BOOSTER] = json.dumps({"vendor": booster.vendor, **booster.facts}).encode()
        files[booster.name] = booster.content
    return files


def pipeline_of(files: Files) -> Pipeline:
    """Inverse of `files_of`; predicts the same to the last bit.

    The files must be those that were written: check their digests first.

    Raises:
        ArtifactError: a file is missing or damaged, or holds a type that is not trusted.
    """
    if PIPELINE not in files:
        raise ArtifactError(f"a member needs a file {PIPELINE}, got {sorted(files)[:5]}; export it again")
    pipeline: Pipeline = from_skops(files[PIPELINE])
    if BOOSTER in files:
        pipeline.steps[-1][1].estimator_ = _read_booster(files)
    return pipeline


def to_skops(estimator: Any) -> bytes:
    """A scikit-learn object in skops' format.

    Raises:
        ArtifactError: a part is of a type that is not trusted.
    """
    import skops.io

    content: bytes = skops.io.dumps(estimator)
    _check_types(content)
    return content


def from_skops(content: bytes) -> Any:
    """Inverse of `to_skops`.

    Raises:
        ArtifactError: the file is damaged, or holds a type that is not trusted.
    """
    import skops.io

    _check_types(content)
    try:
        with warnings.catch_warnings():
            # The reader of an export is told of other versions once, by the manifest; see `artifact.load_model`.
            warnings.filterwarnings("ignore", "Trying to unpickle estimator")
            return skops.io.loads(content, trusted=list(TRUSTED))
    except Exception as error:  # noqa: BLE001  # skops raises whatever the parts of a damaged file provoke
        raise ArtifactError(f"a model file must be readable, got {_brief(error)}; export it again") from None


def _check_types(content: bytes) -> None:
    import skops.io

    try:
        strange = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED))
    except Exception as error:  # noqa: BLE001  # as above
        raise ArtifactError(f"a model file must be readable, got {_brief(error)}; export it again") from None
    if strange:
        raise ArtifactError(
            f"a model file may hold trusted types only, got {strange[0][:100]!r}; load models of offline_tune only"
        )


def _taken_apart(pipeline: Pipeline) -> tuple[Pipeline, boosters.BoosterFile | None]:
    """The pipeline without the booster that stands inside its last step, our wrapper of the vendors."""
    wrapper = pipeline.steps[-1][1]
    fitted = getattr(wrapper, "estimator_", None)
    if not boosters.is_booster(fitted):
        return pipeline, None
    emptied = copy.copy(wrapper)
    emptied.estimator = emptied.estimator_ = None
    skeleton = copy.copy(pipeline)
    skeleton.steps = [*pipeline.steps[:-1], (pipeline.steps[-1][0], emptied)]
    return skeleton, boosters.written(fitted)


def _read_booster(files: Files) -> Any:
    try:
        facts = json.loads(files[BOOSTER])
        vendor = facts["vendor"]
        (content,) = [content for name, content in files.items() if name not in (PIPELINE, BOOSTER)]
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(
            f"a booster needs its facts and one file, got {sorted(files)[:5]}; export it again"
        ) from None
    return boosters.read(str(vendor), content, facts)


def _brief(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
