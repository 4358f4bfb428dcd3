"""What lives and dies with one run of a program: its scopes, variables, random keys and refs. README.md tells the words.

Nothing in this folder knows which program is running: each object is made for one run and handed over explicitly. Floor 2.
"""
