"""`motionpair simulate`: a recipe at work on workers that only take time, and none of the user's."""
