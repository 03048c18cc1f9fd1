"""From trained weights to a SavedModel: strings in, standard operations only."""
