"""What is learnt from, made out of what was tried: filters, caps, other prompts for the same answer, spliced histories, and the corpus that they end up in.

It stands between rewards and objective. Functions take trajectories and return trajectories; nothing is changed in place, and where an example came from stays on it.
"""

from etude.curation.balance import Balance, balance, best_first, filled_evenly
from etude.curation.corpus import Corpus
from etude.curation.corrections import corrections, paired_corrections
from etude.curation.examples import conversation_example, demonstrated, relabelled, spliced, with_origin
from etude.curation.keep import capped, distinct, one_per_task, rewarded, share_weights
from etude.curation.splices import Turn, continuation, contrasting, spliced_conversation

__all__ = [
    "Balance",
    "Corpus",
    "Turn",
    "balance",
    "best_first",
    "capped",
    "continuation",
    "contrasting",
    "conversation_example",
    "corrections",
    "demonstrated",
    "distinct",
    "filled_evenly",
    "one_per_task",
    "paired_corrections",
    "relabelled",
    "rewarded",
    "share_weights",
    "spliced",
    "spliced_conversation",
    "with_origin",
]
