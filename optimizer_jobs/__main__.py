"""`python -m optimizer_jobs --request FILE`: what every Job of the operator runs, and what a person runs by hand."""

import sys

from optimizer_jobs.run import main

if __name__ == "__main__":
    sys.exit(main())
