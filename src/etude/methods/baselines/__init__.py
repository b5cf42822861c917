"""The policy-gradient and imitation baselines that other methods are compared with."""
