"""The review page: test-set answers read by people, judged by keys, saved at once."""

LABELS: dict[str, str] = {
    "correct": "c",
    "wrong": "w",
    "hallucinated": "h",
    "incomplete": "i",
    "unsafe": "u",
    "unsure": "n",
}
"""What an answer can be judged, and the letter that does it; 1 to 6 do as well, in this order."""
ANSWERS = ("base", "tuned")
PREFERENCES = ("base", "tuned", "tie")
ORDERS = ("suspicious", "random", "file", "picked")
"""How the judged rows came up; `picked` by a filter or a search."""
