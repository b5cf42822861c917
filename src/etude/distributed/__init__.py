"""What works in other processes through Ray: samplers, and workers that judge and hold environments. The loop sees a `Sampler` and a `TaskSet` as ever.

Nothing is exported here, and only `cluster` imports ray, when it is asked for one.
"""
