"""What is learnt from, made out of what was tried: filters, caps, other prompts for the same answer, spliced histories, and the corpus that they end up in.

It stands between rewards and objective. Functions take trajectories and return trajectories; nothing is changed in place, and where an example came from stays on it.
"""

from etude.curation.balance import Balance, balance, best_first, filled_evenly
from etude.curation.corpus import Corpus
from etude.curation.examples import conversation_example, demonstrated, relabelled, spliced, with_origin
from etude.curation.keep import capped, distinct, rewarded
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
    "demonstrated",
    "distinct",
    "filled_evenly",
    "relabelled",
    "rewarded",
    "spliced",
    "spliced_conversation",
    "with_origin",
]
