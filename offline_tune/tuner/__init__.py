"""The tuner: a data file in, a tuned model out."""
