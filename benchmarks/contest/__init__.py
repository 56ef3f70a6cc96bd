"""The contest of tuners behind benchmarks/tuning.py: problems, contestants, records, figures."""
