"""What a model, a budget and a number of streams would take of a device, before anything runs."""
