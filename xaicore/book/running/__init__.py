"""Running the notebooks of an edition: what there is to run, checks beforehand, kernels, folders, the screen."""
