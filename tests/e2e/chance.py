# SPDX-License-Identifier: MIT
"""What random lines and programs are made with."""


class Chance:
    """rng decides everything."""

    def __init__(self, rng):
        self.rng = rng

    def chance(self, percent):
        return self.rng.randrange(100) < percent

    def pick(self, *choices):
        return self.rng.choice(choices)
