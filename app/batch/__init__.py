"""Many rows: a table of prompts, pictures and settings, drawn or scored row by row, on one device, on several, on Ray."""
