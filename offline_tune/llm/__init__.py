"""Language models in this process: files, grammars, decoding. The only place that knows llama.cpp and llguidance."""
