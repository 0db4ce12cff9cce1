"""`python -m riszoo`."""

import sys

from riszoo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
