"""What `make bench-decoding` measures, one module a question; each answers with rows of one table."""
