"""Makes the demo model, which edits drawn scenes as it is told: from a seed, on a GPU in minutes. Not installed.

scenes.py        a scene as a description
drawing.py       a description as pixels
example.py       the templates' picture, drawn by it
instructions.py  what can be asked of a scene, and what comes of it
wording.py       how it is said
families.py      a scene and three edits, which make eight pictures and many lessons
album.py         families drawn, and all that can be said about them
vocabulary.py    the words that are taught
autoencoder.py   the VAE: FLUX's architecture, small
muon.py          the optimiser of the matrices
transformer.py   FLUX's transformer, under its files' names, for training
network.py       text encoder and transformer together, and how an edit is sampled
kept_files.py    a work folder's files, written whole or not at all
asked_for.py     what the commands are asked for
pool.py          encoded families, and batches from them
lora.py          a LoRA for it: night, with lights
train.py         the courses, to be stopped and gone on with
evaluate.py      whether held-out instructions are done right
grid.py          edits side by side, to be looked at
card.py          the model card's figures and pictures
export.py        the files that users load
stored.py        those files as a work folder, to go on from
__main__.py      the command: `python -m kontext_bridge.training FOLDER`
"""
