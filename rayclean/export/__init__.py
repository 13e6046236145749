"""What others take over from a run: which samples stay, with which labels, in the forms of other tools."""
