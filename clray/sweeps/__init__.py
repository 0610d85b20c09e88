"""Many runs over a search space, with Ray Tune."""
