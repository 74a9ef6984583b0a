"""The begin of a script in which nothing can be imported but some distributions, and what is of none."""

NOTHING_ELSE = """
import sys
from importlib.metadata import packages_distributions
allowed, of = set(sys.argv[1].split(",")), packages_distributions()
class Refuse:
    def find_spec(self, name, path=None, target=None):
        owners = {owner.lower().replace("_", "-") for owner in of.get(name.partition(".")[0], ())}
        if owners and not owners & allowed:
            raise ModuleNotFoundError(f"{name} of {owners}", name=name)
sys.meta_path.insert(0, Refuse())
"""
"""Its first argument names them, with commas between."""
