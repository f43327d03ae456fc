"""Very many pictures: from files of prompts to folders or tar files, by several processes, resumed where it stopped."""
