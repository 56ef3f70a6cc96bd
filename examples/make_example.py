"""Write a real data set as a CSV file: 569 breast tumours, 30 measurements each, benign or malignant.

It is the Wisconsin Diagnostic Breast Cancer data (Street, Wolberg and Mangasarian, 1993), which scikit-learn ships, so
nothing is downloaded. `make run` tunes on it.

    python examples/make_example.py runs/breast_cancer.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer


def main(path: Path) -> None:
    """Write the table to a path, with the folders above it."""
    data = load_breast_cancer(as_frame=True)
    table = data.data.assign(diagnosis=data.target.map(dict(enumerate(data.target_names))))
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"one argument is expected, the path to write, got {len(sys.argv) - 1}; name a .csv file")
    main(Path(sys.argv[1]))
