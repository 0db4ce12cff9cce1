"""The command line: verbs, help, and recipe names resolved to a LightningCLI configuration."""
