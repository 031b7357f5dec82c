"""The closed list of what an inspection can find, each with one line of what it means."""

from __future__ import annotations

REASONS: dict[str, str] = {
    # painted pictures
    "no_person": "nobody can be seen",
    "several_people": "more than one person can be seen",
    "cropped": "limbs that the clip shows lie outside the picture",
    "turned_away": "the person is turned another way than the clip's",
    "arms_crossed": "the arms hide the body",
    "looks_like_the_real_person": "the new character is dressed as the real person, or has the same face",
    "too_small": "the person is drawn too small",
    "too_large": "the person is drawn too large",
    # synthetic videos: the file
    "wrong_geometry": "another number or size of frames than asked",
    "black": "black frames that the clip does not have",
    "frozen": "the video stands still while the clip moves",
    # the people
    "person_lost": "a character is missing, or for too long",
    "bystander_lost": "somebody of the clip who should have stayed is gone",
    "extra_person": "somebody is there who should not be",
    "limb_missing": "an arm or a leg of a character is not there",
    "too_small_in_frame": "the characters cover next to nothing",
    "mask_incomplete": "a character's silhouette can't be followed",
    # the motion
    "motion_differs": "a character does something else than the real person",
    "motion_mirrored": "left and right are exchanged",
    "motion_late": "the motion comes too late",
    "motion_early": "the motion comes too early",
    # the looks
    "identity_changed": "a character is not the painted one, or changes",
    "flicker": "light or colour jumps from frame to frame",
    "wrong_scene": "the scene is not the one that was asked",
    "clip_scene_left": "an animation shows the clip's scene",
    "real_person_left": "parts of the replaced person can still be seen",
    # a preference pair's loser
    "loser_not_worse": "it does what the clip does as well as the winner",
    # the generator's own word
    "low_confidence": "the generator itself doubts the result",
    # for a person to look at
    "unsafe": "may be unfit for use",
    # what only eyes find
    "not_one_person": "not exactly one person",
    "not_the_character": "another character than asked",
    "wrong_clothing": "other clothes than asked",
    "bad_anatomy": "a body that can't be",
    "bad_hands": "hands that can't be",
    "bad_face": "a face that can't be",
    "hidden_limbs": "limbs are hidden",
    "unsuitable_pose": "a pose that can't be animated",
    "bad_composition": "the picture is framed badly",
    "artefacts": "marks of the generator",
}
"""code → what it means. A code outside this list never leaves an inspection."""

SEEN_IN_IMAGES: tuple[str, ...] = (
    "not_one_person", "not_the_character", "wrong_clothing", "wrong_scene", "bad_anatomy", "hidden_limbs", "unsuitable_pose",
    "bad_composition", "artefacts", "unsafe",
)  # fmt: skip
"""what a brain with eyes may find in a painted picture"""

SEEN_IN_VIDEOS: tuple[str, ...] = (
    "motion_differs", "identity_changed", "bad_anatomy", "bad_hands", "bad_face", "extra_person", "person_lost", "wrong_scene",
    "flicker", "artefacts", "unsafe",
)  # fmt: skip
"""what a brain with eyes may find in a synthetic video"""

FATAL: frozenset[str] = frozenset(
    {"no_person", "several_people", "turned_away", "arms_crossed", "looks_like_the_real_person", "low_confidence", "loser_not_worse"}
)
"""what another attempt with other words does not mend: the next character may"""

REVIEW: frozenset[str] = frozenset({"unsafe"})
"""what a measure can't decide: a person has to look"""
