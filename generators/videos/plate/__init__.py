"""The clip's scene without its people, and how holes in pictures are filled."""

from generators.videos.plate.belongings import box_around
from generators.videos.plate.fill import fill_from, inpaint, soft_fill
from generators.videos.plate.removal import MASK_ON, Plate, clean_plate

__all__ = ["MASK_ON", "Plate", "box_around", "clean_plate", "fill_from", "inpaint", "soft_fill"]
