"""Raw values <-> arrays: fitted on the training part only, saved with the model, the same numbers in training and in service."""
