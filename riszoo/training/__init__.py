"""Training: the LightningCLI of fit, validate, test and predict, callbacks, checkpoints and run folders."""
