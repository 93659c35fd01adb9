"""``python -m theorylab`` is the command ``theorylab``."""

from theorylab.verify.cli import main

main()
