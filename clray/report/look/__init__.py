"""Looking at the clusters of a run: which images they hold, what these share, and how clusters changed, as one page."""
