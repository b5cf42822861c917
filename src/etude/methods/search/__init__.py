"""Methods that search: over what can be done next at a task, over whole attempts, over agents that change themselves."""
