"""Pre-training of the shipped model: from histories to a GGUF. Needs torch and gguf, the `[pretrain]` extra."""
