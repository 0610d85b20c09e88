"""`python -m clray`."""

from clray.cli.app import main

main()
