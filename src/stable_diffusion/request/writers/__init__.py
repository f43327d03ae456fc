"""What programs write into pictures, wherever they put it: found in files, and brought to A1111's form.

`files` finds the texts, `forms` says whose they are and makes one text in A1111's form of them, `infotext` splits such
a text, and `programs` says what its values mean in the program that wrote it.
"""
