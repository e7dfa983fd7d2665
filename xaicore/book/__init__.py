"""The book around the science: editions, claims and their verdicts, staging and the build gate.

Nothing here computes a heatmap or an attack. These modules read what a run left behind (``record.json``), hold it against
what each paper reports (``claims/pN.yml``) by rules fixed before the run, and turn the outcome into pages.
"""
