"""Studies on disk: an Optuna storage in a run folder, and the records beside it."""
