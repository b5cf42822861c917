"""What is learnt from, made out of what was tried: filters, caps, other prompts for the same answer, spliced histories, and the corpus that they end up in.

It stands between rewards and objective. Functions take trajectories and return trajectories; nothing is changed in place, and where an example came from stays on it.
"""

from etude.curation.balance import Balance, balance, best_first, filled_evenly
from etude.curation.corpus import Corpus
from etude.curation.corrections import corrections, paired_corrections
from etude.curation.examples import conversation_example, relabelled, spliced, with_origin
from etude.curation.keep import capped, distinct, one_per_task, rewarded, share_weights

__all__ = [
    "Balance",
    "Corpus",
    "balance",
    "best_first",
    "capped",
    "conversation_example",
    "corrections",
    "distinct",
    "filled_evenly",
    "one_per_task",
    "paired_corrections",
    "relabelled",
    "rewarded",
    "share_weights",
    "spliced",
    "with_origin",
]
