"""Hundreds of networks trained at once, equal to training each alone.

Rows of a stack (candidates x folds x seeds) are the first axis of every tensor: parameters (N, ...), inputs
(N, b, ...). What differs between rows is a vector over that axis (rates, decay, momentum, dropout, smoothing,
clipping), a padding with zeros (widths), a prefix of rows (depths), or the rhythm of updates (batch sizes).

torch is imported only by the modules of this package, and they are imported only by whoever trains or predicts.
"""
