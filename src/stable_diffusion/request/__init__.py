"""What is asked for: settings checked in plain sentences, written into pictures and read back; torch is not needed.

group.py     how a setting is one line of a table         fields.py, sequences.py   the kinds of values
request.py   `Request`, `all_settings`                    settings.py   its groups
control.py   lora.py   pictures.py   names.py   what it is made of
metadata.py, metadata_read.py   the `parameters` text     json.py   JSON and schemas
axes.py   grids of settings                               prompt_file.py   prompts, one a line
"""
