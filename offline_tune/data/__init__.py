"""Data: from a file to a task, a training part, a test part and folds."""
