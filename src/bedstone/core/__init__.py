"""The foundation: errors, events, logging, protocols, registry, devices, dtypes and memory; torch and nothing else.

Import from the modules, or the public names from `bedstone` itself.
"""

# Every error is an event, whichever module of core a program imports first.
from bedstone.core import events as events
