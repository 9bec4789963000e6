"""A bound on the norm of a round's aggregated update, which limits how far one round can change the model."""
