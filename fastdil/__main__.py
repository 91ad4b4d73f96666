"""``python -m fastdil`` is the same as the `fastdil` command."""

import sys

from fastdil.cli import main

if __name__ == "__main__":
    sys.exit(main())
