"""`python -m recurra`: the command line, where its script is not on the path."""

from recurra.cli import main

main()
