"""Verbs of the stories' practice of tenses, and endings that fit any verb but occur with only one."""

from __future__ import annotations

VERBS = (
    ("run", "runs", "ran"),
    ("sing", "sings", "sang"),
    ("eat", "eats", "ate"),
    ("write", "writes", "wrote"),
    ("swim", "swims", "swam"),
    ("draw", "draws", "drew"),
    ("go", "goes", "went"),
    ("think", "thinks", "thought"),
    ("sleep", "sleeps", "slept"),
    ("sit", "sits", "sat"),
    ("hide", "hides", "hid"),
    ("wake", "wakes", "woke"),
    ("drink", "drinks", "drank"),
    ("fall", "falls", "fell"),
    ("climb", "climbs", "climbed"),
    ("laugh", "laughs", "laughed"),
    ("dance", "dances", "danced"),
    ("walk", "walks", "walked"),
)
"""Base, third person, past tense."""

ENDINGS = {
    "run": "to the gate",
    "swim": "across the lake",
    "go": "home before dark",
    "sleep": "until noon",
    "sit": "under the old tree",
    "hide": "behind the curtain",
    "wake": "before the birds",
    "fall": "into the hay",
    "climb": "over the fence",
    "laugh": "at the joke",
    "dance": "in the rain",
    "walk": "along the wall",
}
"""The only verb with which the stories use each ending."""
