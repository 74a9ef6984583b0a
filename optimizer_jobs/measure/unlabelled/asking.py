"""Which rows of a window a person should label next: unsure ones, unseen ones, none twice, and some by chance.

What is informative is where the model is unsure, or where it has never been judged. Of the most informative rows, those
nearest to the centres of clusters are taken, so that a batch does not ask the same question many times (weighted
k-means over a pool a few times as large as the batch; F. Zhdanov, "Diverse mini-batch active learning", 2019,
arXiv:1901.05954). Labels of such rows alone would make a model look worse than it is. So a share of the batch is drawn
from all rows by chance, before anything else is chosen: it is a random sample of the window, whatever stands beside it.
"""

import warnings
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.measure.unlabelled.features import Floats, encoded
from optimizer_jobs.measure.unlabelled.support import support_of

CHANCE = 0.25
"""Share of the rows that is drawn by chance."""
POOL = 10
"""How many times as many rows as are wanted the most informative ones are chosen from."""
LEAST_JUDGED = 10
"""Fewest rows beside which it can be said of others how far away they are."""
_ANSWERS = 2.0
"""How far apart two sure answers of different classes lie, beside inputs that lie about 1.4 apart."""
_LEAST_WEIGHT = 1e-3
_ROUNDS = 30
_CROWD = 0.25
"""Largest share of what is chosen from that lies together: a crowd of rows that hardly differ keeps no others out."""

Places = NDArray[np.int64]


class Why(StrEnum):
    """Why a row is worth a label."""

    UNCERTAIN = "Uncertain"
    """The model is less sure of its answer than elsewhere."""
    UNSEEN = "Unseen"
    """It lies where no row has been judged."""
    CHANCE = "Chance"
    """It was drawn by chance, so that what is measured is not of hard rows alone."""


@dataclass(frozen=True)
class Candidates:
    """N rows without a label."""

    where: Floats
    """(N, D): where each lies, by inputs and answers, in one unit."""
    unsure: Floats | None
    """(N,): how unsure the model is of its answer, in any unit; None where its answers do not say."""
    far: Floats | None
    """(N,): share (0..1) of the judged rows that lie nearer to others of them than this row; None without such rows."""
    kinds: Places | None = None
    """(N,): rows with the same number are copies of each other; None where none are."""

    def __len__(self) -> int:
        return len(self.where)

    @property
    def parts(self) -> tuple[Floats, Floats]:
        """How uncertain (N,) and how unseen (N,) each row is, from 0 to 1.

        Of uncertainty the order alone counts, and only what lies farther away than half of the judged rows is unseen.
        """
        nothing = np.zeros(len(self))
        uncertain = nothing if self.unsure is None else _ranked(np.nan_to_num(self.unsure, nan=0.0))
        return uncertain, nothing if self.far is None else np.clip(2 * self.far - 1, 0.0, 1.0)

    @property
    def scores(self) -> Floats:
        """How informative each row is (N,), from 0 to 1; all alike where neither part is known."""
        known = (self.unsure is not None) + (self.far is not None)
        return np.asarray(sum(self.parts) / known) if known else np.ones(len(self))


@dataclass(frozen=True)
class Chosen:
    """K rows to ask about; any beginning of them has about the same share by chance."""

    rows: Places
    """(K,): places among the candidates, each once."""
    why: tuple[Why, ...]
    """(K,)"""
    scores: Floats
    """(K,): how informative each is, from 0 to 1."""


def candidates(
    inputs: pd.DataFrame, judged: pd.DataFrame, *, unsure: Floats | None = None, answers: Floats | None = None
) -> Candidates:
    """Return rows without a label as they are chosen from.

    Args:
        inputs: Their inputs (N rows).
        judged: Inputs of rows that have a label; where they are fewer than LEAST_JUDGED, nothing is known of distances.
        unsure: How unsure the model is of each answer (N,); None where that is not known.
        answers: The answers as numbers from 0 to 1 (N, C), so that rows of unlike answers are unlike.
    """
    known = len(judged) >= LEAST_JUDGED
    rows = encoded(judged if known else inputs, inputs)
    where = rows.window / np.sqrt(max(1, rows.window.shape[1]))
    if answers is not None:
        where = np.concatenate([where, _ANSWERS * np.nan_to_num(answers)], axis=1)
    far = None
    if known and len(inputs) and rows.reference.shape[1]:
        support = support_of(rows)
        own = np.sort(support.reference)
        nearer = np.searchsorted(own, support.window, side="right") / len(own)
        far = np.where(rows.unseen, 1.0, nearer)
    return Candidates(where, unsure, far, _copies(inputs))


def choose(rows: Candidates, *, count: int, chance: float = CHANCE, seed: int) -> Chosen:
    """Return the rows to ask about, the most informative first; fewer than `count` where the others repeat them.

    Args:
        rows: N rows.
        count: How many are wanted.
        chance: Share of them (0..1) that is drawn by chance from all rows.
        seed: Seed of everything that is drawn.
    """
    generator = np.random.default_rng(seed)
    count = min(count, len(rows))
    order = generator.permutation(len(rows))
    drawn = order[: round(chance * count)]
    best = _informative(rows, order, drawn, count - len(drawn), seed)
    uncertain, unseen = rows.parts
    reasons = [Why.UNCERTAIN if uncertain[place] > unseen[place] else Why.UNSEEN for place in best]
    turns = np.concatenate([_turns(len(drawn)), _turns(len(best))])
    mixed = np.argsort(turns, kind="stable")
    together = np.concatenate([drawn, best])[mixed]
    why = [Why.CHANCE] * len(drawn) + reasons
    return Chosen(together, tuple(why[place] for place in mixed), rows.scores[together])


def _informative(rows: Candidates, order: Places, drawn: Places, count: int, seed: int) -> Places:
    """Return at most `count` informative rows (K,) that are unlike each other and the drawn ones, the best first.

    Rows that are as informative as each other come in the given order.
    """
    scores, kinds = rows.scores, np.arange(len(rows)) if rows.kinds is None else rows.kinds
    ranked = order[np.argsort(-scores[order], kind="stable")]
    ranked = ranked[~np.isin(kinds[ranked], kinds[drawn])]
    ranked = ranked[np.sort(np.unique(kinds[ranked], return_index=True)[1])]
    if count <= 0 or len(ranked) <= count:
        return ranked[: max(0, count)]
    pool = _uncrowded(rows.where, ranked, count, seed)
    centres = _nearest_to_centres(rows.where[pool], scores[pool], count, seed)
    others = np.setdiff1d(np.arange(len(pool)), centres)[: count - len(centres)]
    return np.asarray(pool[np.sort(np.concatenate([centres, others]))])


def _uncrowded(where: Floats, ranked: Places, count: int, seed: int) -> Places:
    """Return the best POOL times `count` of the ranked rows, of those that lie together a part only.

    Clusters follow distances, so that many rows that hardly differ share one, however many they are.
    """
    size = POOL * count
    if len(ranked) <= size or not where.shape[1]:
        return ranked[:size]
    of_row, _ = _clusters(where[ranked], np.ones(len(ranked)), count, seed)
    by_cluster = np.argsort(of_row, kind="stable")
    begins = np.searchsorted(of_row[by_cluster], of_row)
    turn = np.empty(len(ranked), dtype=np.int64)
    turn[by_cluster] = np.arange(len(ranked))
    kept = ranked[turn - begins < max(POOL, int(_CROWD * size))]
    others = ranked[~np.isin(ranked, kept)]
    return np.concatenate([kept, others[: max(0, count - len(kept))]])[:size]


def _nearest_to_centres(where: Floats, scores: Floats, count: int, seed: int) -> Places:
    """Return the place of the row nearest to the centre of each cluster, at most `count`."""
    if not where.shape[1]:
        return np.zeros(0, dtype=np.int64)
    of_row, centres = _clusters(where, scores + _LEAST_WEIGHT, count, seed)
    distance = np.square(where - centres[of_row]).sum(axis=1)
    nearest = np.lexsort((distance, of_row))
    return np.asarray(nearest[np.unique(of_row[nearest], return_index=True)[1]])


def _clusters(where: Floats, weights: Floats, count: int, seed: int) -> tuple[Places, Floats]:
    """Return the cluster of each row (N,), and their centres (`count`, D)."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    clusters = KMeans(count, n_init=1, max_iter=_ROUNDS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of rows that hardly differ, fewer clusters are found
        of_row = clusters.fit_predict(where, sample_weight=weights)
    return of_row, clusters.cluster_centers_


def _copies(inputs: pd.DataFrame) -> Places | None:
    """Return a number for each row (N,) that its copies have, too; None where there are no inputs to tell by."""
    if not len(inputs.columns):
        return None
    hashes = pd.util.hash_pandas_object(inputs, index=False).to_numpy()
    return np.asarray(np.unique(hashes, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def _turns(count: int) -> Floats:
    """Return when each of so many comes (K,), spread evenly over the time from 0 to 1."""
    return np.asarray((np.arange(count) + 0.5) / max(1, count))


def _ranked(values: Floats) -> Floats:
    """Return which share of all values each value (N,) exceeds, equal ones counting half."""
    order = np.sort(values)
    below, upto = (np.searchsorted(order, values, side=side) for side in ("left", "right"))
    return np.asarray((below + upto) / (2 * max(1, len(values))))
