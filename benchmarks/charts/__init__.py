"""Charts of finished runs, for papers and for the report; all are made from stored results."""
