"""Methods that correct and teach themselves: revision, rounds of imitation on what was found right, and what they need of a model that judges its own words."""
