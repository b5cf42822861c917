"""Methods that change where and how rollouts are spent, so that the policy meets answers it would not have found."""
