"""What lives and dies with one run of a program: its scopes, variables, random keys and refs. Floor 2.

Nothing in this folder knows which program is running: each object is made for one run, and is handed over explicitly.
README.md, beside this file, tells the words.
"""
