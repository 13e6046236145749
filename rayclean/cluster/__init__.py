"""Ray, all that is no adapter: connecting, pools of actors, training's workers, progress."""
