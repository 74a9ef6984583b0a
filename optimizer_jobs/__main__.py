"""`python -m optimizer_jobs --request FILE`: the program that every Job runs, and that a person can run by hand."""

import sys

from optimizer_jobs.run import main

if __name__ == "__main__":
    sys.exit(main())
