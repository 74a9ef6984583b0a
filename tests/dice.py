"""Chance that can be repeated: a test that leaves something to it says which, and a variable brings the same again."""

import os
import random
from collections.abc import Mapping

VARIABLE = "RETUNE_TEST_SEED"


def thrown(environment: Mapping[str, str] = os.environ) -> random.Random:
    """Return dice with the seed that the environment gives, else with a fresh one; prints which.

    pytest shows what a failed test printed. Raises ValueError where the variable is no whole number.
    """
    given = environment.get(VARIABLE)
    seed = int(given) if given else random.SystemRandom().randrange(2**32)
    print(f"{VARIABLE}={seed} repeats what chance decided here")
    return random.Random(seed)
