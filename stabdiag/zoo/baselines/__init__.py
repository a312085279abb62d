"""Rules of other tools, written anew from their formulae and run on the same recordings: one file a tool."""
