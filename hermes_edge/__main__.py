"""``python -m hermes_edge``: the command line."""

from hermes_edge.cli import main

if __name__ == "__main__":
    main()
