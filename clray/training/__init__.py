"""One run: restore, then per epoch recluster, train, evaluate, report."""
