"""offline_tune: a tuner and trainer of machine-learning models for one workstation with no network."""

__version__ = "0.1.0"
