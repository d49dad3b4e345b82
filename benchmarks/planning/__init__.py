"""From the options that a user gives to a plan that is complete and checked."""
