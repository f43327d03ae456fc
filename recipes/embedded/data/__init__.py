"""The data stage of the embedded model: openly licensed registry packages in, a pack of captioned RGBA pictures out."""
