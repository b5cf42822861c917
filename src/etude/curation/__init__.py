"""What is learnt from, made out of what was tried: filters, caps, other prompts for the same answer, spliced histories, and the corpus that they end up in.

It stands between rewards and objective. Functions take trajectories and return trajectories; nothing is changed in place, and where an example came from stays on it.
"""

from etude.curation.corpus import Corpus
from etude.curation.examples import conversation_example, relabelled, spliced, with_origin
from etude.curation.keep import capped, distinct, one_per_task, rewarded

__all__ = ["Corpus", "capped", "conversation_example", "distinct", "one_per_task", "relabelled", "rewarded", "spliced", "with_origin"]
