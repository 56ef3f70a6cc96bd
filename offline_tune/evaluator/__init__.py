"""Evaluators: candidates in, results out, same order and length."""
