"""The verbs: what each command does, as a function. The library returns values, prints nothing."""
