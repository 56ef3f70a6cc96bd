"""The vocabulary of the compact dialect: what each token id stands for.

A value token says which parameter it belongs to and which level it has, both at once: `<learning_rate=17>`. So a
trial is one token a parameter, needs no order, and leaves inactive parameters out.

    0 .. 2      <unk> <s> </s>
    3 .. 258    the 256 bytes (a llama.cpp tokenizer wants them; no compact prompt uses them)
    then        structure, families, outcomes, parameters, values (parameter by parameter, level by level)

A parameter is known by name, or takes a slot. Numbers have `N_LEVELS` levels on their own scale; a choice's level is
the place of its word in `WORDS` where the parameter is known by name and all its choices are words, else its place
among the choices. `DIALECT_VERSION` changes whenever a piece moves.

Knows nothing of spaces, histories or models.
"""

from __future__ import annotations

from functools import cached_property

DIALECT = "compact"
DIALECT_VERSION = 1

N_LEVELS = 64  # of a number, evenly on its own scale; also the most choices of a categorical
N_OUTCOMES = 64
N_NUMBER_SLOTS = 24  # parameters without a known name, by order of appearance
N_CHOICE_SLOTS = 12

STRUCTURE = ("<task>", "<trial>", "<propose>", "<outcome>", "<fail>", "<pending>")
FAMILIES = (
    "linear",
    "knn",
    "svm",
    "decision_tree",
    "random_forest",
    "extra_trees",
    "hist_gradient_boosting",
    "xgboost",
    "lightgbm",
    "catboost",
    "mlp",
)
NUMBERS = (
    "learning_rate",
    "n_estimators",
    "max_depth",
    "min_child_weight",
    "min_samples_leaf",
    "min_samples_split",
    "subsample",
    "colsample_bytree",
    "colsample_bylevel",
    "colsample_bynode",
    "reg_alpha",
    "reg_lambda",
    "gamma",
    "rate_drop",
    "skip_drop",
    "num_leaves",
    "max_bin",
    "max_leaf_nodes",
    "max_features",
    "n_random_splits",
    "ccp_alpha",
    "C",
    "alpha",
    "l1_ratio",
    "degree",
    "coef0",
    "epsilon",
    "n_neighbors",
    "p",
    "hidden_width",
    "hidden_layers",
    "width",
    "depth",
    "batch_size",
    "dropout",
    "momentum",
    "weight_decay",
    "epochs",
    "warmup",
    "label_smoothing",
    "gradient_clipping",
    "beta1",
    "beta2",
    "embedding_size",
    "select",
    "text_features",
    "bagging_temperature",
    "random_strength",
    "l2_leaf_reg",
    "border_count",
    "min_split_gain",
    "bagging_freq",
    "max_iter",
    "tol",
    "validation_fraction",
    "n_components",
)
CHOICES = (
    "family",
    "booster",
    "criterion",
    "bootstrap",
    "splitrule",
    "penalty",
    "class_weight",
    "kernel",
    "weights",
    "metric",
    "optimizer",
    "schedule",
    "activation",
    "scaling",
    "encoding",
    "imputing",
    "unordered_factors",
)
WORDS = (
    "true",
    "false",
    "none",
    "balanced",
    "uniform",
    "distance",
    "gbtree",
    "gblinear",
    "dart",
    "goss",
    "gini",
    "entropy",
    "log_loss",
    "extratrees",
    "sqrt",
    "log2",
    "l1",
    "l2",
    "elasticnet",
    "rbf",
    "poly",
    "sigmoid",
    "linear_kernel",
    "standard",
    "robust",
    "quantile",
    "minmax",
    "onehot",
    "ordinal",
    "target",
    "native",
    "mean",
    "median",
    "hist",
    "relu",
    "tanh",
    "gelu",
    "silu",
    "adam",
    "adamw",
    "sgd",
    "rmsprop",
    "ignore",
    "order",
    "partition",
    "euclidean",
    "manhattan",
    "cosine",
    "constant",
    *FAMILIES,
)


class Vocabulary:
    """Pieces and their ids; one instance, `VOCABULARY`, serves the program."""

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """Every piece in the order of its id."""
        return (
            "<unk>",
            "<s>",
            "</s>",
            *(f"<0x{byte:02X}>" for byte in range(256)),
            *STRUCTURE,
            *(f"<family:{name}>" for name in ("?", *FAMILIES)),
            *(f"<y{level}>" for level in range(N_OUTCOMES)),
            *(f"<{name}>" for name in self.parameters),
            *(f"<{name}={level}>" for name in self.parameters for level in range(N_LEVELS)),
        )

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Known numbers, known choices, slots of numbers, slots of choices."""
        return (
            *NUMBERS,
            *CHOICES,
            *(f"number {index}" for index in range(N_NUMBER_SLOTS)),
            *(f"choice {index}" for index in range(N_CHOICE_SLOTS)),
        )

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each piece."""
        return {piece: index for index, piece in enumerate(self.pieces)}

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def first_outcome(self) -> int:
        """The id of `<y0>`; the others follow in order."""
        return self.ids["<y0>"]

    @cached_property
    def first_parameter(self) -> int:
        """The id of the first parameter's name; the others follow in order."""
        return self.ids[f"<{self.parameters[0]}>"]

    @cached_property
    def first_value(self) -> int:
        """The id of the first parameter's level 0; levels follow, then the next parameter's."""
        return self.first_parameter + len(self.parameters)

    def value(self, parameter: int, level: int) -> int:
        """The id of a parameter's level; `parameter` is a place in `parameters`."""
        return self.first_value + parameter * N_LEVELS + level

    def name(self, parameter: int) -> int:
        """The id of a parameter's name."""
        return self.first_parameter + parameter

    def family(self, name: str) -> int:
        """The id of a family, or of an unknown one."""
        return self.ids.get(f"<family:{name}>", self.ids["<family:?>"])

    def known(self, name: str, is_choice: bool) -> int | None:
        """The place of a parameter known by name, None for others."""
        names = CHOICES if is_choice else NUMBERS
        return self.parameters.index(name) if name in names else None

    def slot(self, index: int, is_choice: bool) -> int | None:
        """The place of a slot, None beyond the last."""
        count = N_CHOICE_SLOTS if is_choice else N_NUMBER_SLOTS
        if index >= count:
            return None
        return len(NUMBERS) + len(CHOICES) + (N_NUMBER_SLOTS if is_choice else 0) + index

    def word(self, text: str) -> int | None:
        """The place of a word, None for others."""
        return WORDS.index(text.lower()) if text.lower() in WORDS else None


VOCABULARY = Vocabulary()
