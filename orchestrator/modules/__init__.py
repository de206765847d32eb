"""Templates: what is known about an application, so that nobody has to write its module by hand.

A template looks at the machine (`machine.py`: files, units, nothing else), takes what the administrator said (`template.Wishes`), and
makes a `template.Draft`: directories, services, checkers, and what must be said beforehand. `render.py` writes a draft as the TOML text
that a person goes on editing, and nothing remembers afterwards that it came from a template. So there is one kind of module, and no
language of templates.

Each application is a directory: `__init__.py` with its `TEMPLATE`, `README.md` with what `hactl module templates NAME` shows. `archive.py`
makes one file of a module and reads such files, which may come from anybody; `place.py` puts a module's files into the configuration,
whose checks are the ones of every file there; `dangers.py` finds out what to know before it starts.
"""
