"""`python -m clray`."""

from clray.cli import main

main()
