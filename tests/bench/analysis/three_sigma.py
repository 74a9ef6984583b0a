"""The rule of thumb that Retune had: Wilson's interval, three standard deviations wide, at every look.

E. B. Wilson (1927), Journal of the American Statistical Association 22, 209-212. One look errs in 0.14 % of cases; what
many looks err in, nobody had said. Tests and benchmarks measure it.
"""

import math

_SIGMAS = 3.0


def lower_bound(bad: float, total: float) -> float:
    """Return the lower end of the interval of a share; `total` is above 0."""
    share, z = bad / total, _SIGMAS
    spread = z * math.sqrt(max(0.0, share * (1 - share)) / total + z * z / (4 * total * total))
    return max(0.0, (share + z * z / (2 * total) - spread) / (1 + z * z / total))


def upper_bound(bad: float, total: float) -> float:
    """Return the upper end of the interval of a share; `total` is above 0."""
    return 1 - lower_bound(total - bad, total)
