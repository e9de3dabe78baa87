"`python -m atss_nb.cli` is the command `atss`."

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
