"""What a person touches: the page, the command line, the jobs and the library. Only here is gradio imported."""
