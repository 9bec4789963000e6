"""`python -m fedpress` is the `fedpress` command."""

from fedpress.cli import main

if __name__ == "__main__":
    main()
