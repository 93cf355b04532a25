"""`python -m ssvos.cli` is `ssvos`."""

from ssvos.cli import main

if __name__ == "__main__":
    main()
