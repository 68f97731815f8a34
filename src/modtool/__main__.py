"""`python -m modtool`."""

from modtool.cli import main

main()
