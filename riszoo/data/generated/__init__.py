"""What the generated data sets share: random numbers, logical forms and their wording, splits made on access."""
