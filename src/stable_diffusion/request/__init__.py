"""What is asked for: settings, checked in plain sentences, written into pictures and read back; without torch."""
