"""What a plan does to a network, in the words of summaries and reports.

There is no torch in here, so that techniques can describe their parameters before anything heavy is imported.
"""

from optimizer_jobs.technique import Params


def augmented(params: Params) -> str:
    """Return the changes made to rows, such as `noise 0.3, mixup 0.2`."""
    return ", ".join(f"{kind.lower()} {strength:g}" for kind, strength in params.items())


def hardened(params: Params) -> str:
    """Return the attack trained against, such as `hardened against PGD of 0.1`."""
    return f"hardened against {params['method']} of {params['epsilon']:g}"


def reshaped(params: Params) -> str:
    """Return the changed arguments of a network's factory, such as `width 64, depth 1`."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in params.items())
