"""`python -m offline_tune`."""

from offline_tune.cli import main

main()
