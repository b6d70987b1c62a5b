"""What a running ComfyUI gives, and what stands in for it where there is none.

comfyui.py   the run, the element of a list, the user folder, the routes; progress and interruption
voice.py     the line of text that a node says of itself
turns.py     whose turn it is, where a node runs once for each element of a list
aside.py     blocking work on a thread of its own, in its turn, with its status shown, ended by Cancel
media_folders.py  where pictures come from and go to
input_pictures.py  the pictures that the templates open with, brought where LoadImage looks
"""

from __future__ import annotations

from .aside import NoThread, run_off_loop
from .comfyui import (
    FOLDER_NAME,
    HOME_VARIABLE,
    Blocked,
    LocalInterruption,
    NoFolder,
    bar,
    blocked,
    check,
    element,
    executing_node,
    graph,
    interrupted,
    interruption,
    is_interruption,
    model_folder,
    request_interrupt,
    route_table,
    run_id,
    set_local,
    set_local_element,
    several_users,
    user_folder,
)
from .input_pictures import bring_pictures
from .media_folders import MediaFolders, Outside, below, folders_in, media_folders, set_local_media
from .voice import Voice

__all__ = [
    "FOLDER_NAME",
    "HOME_VARIABLE",
    "Blocked",
    "LocalInterruption",
    "MediaFolders",
    "NoFolder",
    "NoThread",
    "Outside",
    "Voice",
    "bar",
    "below",
    "blocked",
    "bring_pictures",
    "check",
    "element",
    "executing_node",
    "folders_in",
    "graph",
    "interrupted",
    "interruption",
    "is_interruption",
    "media_folders",
    "model_folder",
    "request_interrupt",
    "route_table",
    "run_id",
    "run_off_loop",
    "set_local",
    "set_local_element",
    "set_local_media",
    "several_users",
    "user_folder",
]
