"""Samplers: from a history to the next candidates. Each is an Optuna sampler."""
