"""The learner as several processes, each of which holds a shard of weights and optimiser state (torch's `fully_shard`), behind the interface of the learner.

Nothing is exported here: `checks` has to be importable where torch has no distributed part, which the other modules need.
"""
