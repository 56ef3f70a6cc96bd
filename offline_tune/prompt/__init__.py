"""Prompt dialects: `chat` in words for any instruct model, `compact` in the tokens of the shipped model."""
