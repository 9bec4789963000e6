"""A bound on the norm of a round's aggregated update: what a single round can do to the model is limited."""
