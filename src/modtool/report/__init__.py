"""What a command has to say, as raw values; `modtool.render` makes text of it."""
