"""`python -m bedstone` is the command `bedstone`."""

from bedstone.cli import main

if __name__ == "__main__":
    main()
