"""Benchmarks: figures that docs/benchmarks.md reports. They measure; they are not tests."""
