"""The coroutine that makes one pair. It reads like the paper's agentic loop and knows nothing of stores, workers or retries."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agents.selector import Casting
from factory.plan import Job
from factory.stages import Clip, PaintedCharacter, Stages, video_prompt
from manifests.errors import NeedsReview, Rejected
from manifests.records import PREFERENCE, Analysis, Artifact, Finding, FrameBoxes, Lineage, Pair, Selection, Verdict

NOBODY = Verdict(decision="reject", reason="no_candidate")


@dataclass(frozen=True)
class Performance:
    """A synthetic video that passed, with everything the pair needs to know of it."""

    driving: Artifact
    analysis: Analysis
    matched: tuple[int, ...]
    painted: tuple[PaintedCharacter, ...]
    prompt: str
    verdict: Verdict
    video_attempts: int

    @property
    def as_clip(self) -> Clip:
        """The video as something that can be described and that can drive another one."""
        return Clip(self.driving, self.analysis, self.matched, None)


async def make_pair(job: Job, stages: Stages) -> Pair:
    """The finished pair. Raises Rejected with the last reason when the job's budget is spent, and what the steps raise."""
    clip = await stages.look(job)
    if job.task == "pose":
        return await assemble(job, clip, await render_pose(job, clip, stages), stages)
    if job.task == PREFERENCE:
        return await make_preference(job, clip, stages)
    last = NOBODY
    for casting in await stages.select(job, clip):
        painted, last = await paint(job, clip, casting, stages)
        if not painted:
            continue
        for attempt in range(stages.budget.video_attempts):
            done, last = await perform(job, clip, painted, attempt, stages)
            if done:
                return await assemble(job, clip, done, stages)
            if stages.deterministic(job):
                break  # neither a seed nor a word changes anything: the same video would come again
            if attempt + 1 < stages.budget.video_attempts:
                painted = await reworded(job, painted, last, stages)
    raise nothing_passed(last)


async def make_preference(job: Job, clip: Clip, stages: Stages) -> Pair:
    """The finished preference pair: a character's performance of the clip and, made alike from poses that were read off it, the worse one.
    Raises Rejected as make_pair does."""
    last = NOBODY
    for casting in await stages.select(job, clip):
        painted, last = await paint(job, clip, casting, stages)
        if not painted:
            continue
        for attempt in range(stages.budget.video_attempts):
            winner, last = await perform(job, clip, painted, attempt, stages)
            if winner:
                loser, last = await perform_again(job, clip, winner, attempt, stages)
                if loser:
                    return await assemble_preference(job, clip, winner, loser, stages)
            if stages.deterministic(job):
                break
            if attempt + 1 < stages.budget.video_attempts:
                painted = await reworded(job, painted, last, stages)
    raise nothing_passed(last)


def nothing_passed(last: Verdict) -> Rejected:
    """The end of a job whose budget is spent."""
    words = "; ".join(f.words for f in last.findings) or last.reason
    return Rejected(f"no attempt passed: {words}", last.reason)


async def paint(job: Job, clip: Clip, casting: Casting, stages: Stages) -> tuple[tuple[PaintedCharacter, ...], Verdict]:
    """A painted picture for every driven person; empty, with the deciding verdict, when one could not be had."""
    out: list[PaintedCharacter] = []
    verdict = NOBODY
    for selection in casting:
        try:
            one, verdict = await paint_one(job, clip, selection, stages)
        except Rejected as e:
            return (), refusal(e)
        if one is None:
            return (), verdict
        out.append(one)
    return tuple(out), verdict


async def paint_one(job: Job, clip: Clip, selection: Selection, stages: Stages) -> tuple[PaintedCharacter | None, Verdict]:
    """One person's character, painted again with the findings until it passes; None, with the verdict, when it does not."""
    prompt = await stages.weave(job, clip, selection)
    verdict = NOBODY
    for attempt in range(stages.budget.image_attempts):
        picture = await stages.generate_image(job, clip, selection, prompt, attempt)
        verdict = await stages.check_image(job, clip, selection, prompt, picture)
        if verdict.decision == "review":
            raise to_review(verdict, stages.where(picture.picture))
        if verdict.accepted:
            return PaintedCharacter(picture.picture, picture.scene, selection, prompt, attempt + 1), verdict
        if verdict.decision == "reject":
            break
        if attempt + 1 < stages.budget.image_attempts:
            prompt = await stages.revise(job, prompt, verdict, "image")
    return None, verdict


async def perform(
    job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...], attempt: int, stages: Stages
) -> tuple[Performance | None, Verdict]:
    """One attempt at the synthetic video, inspected; None, with the verdict, when it does not pass."""
    try:
        video = await stages.generate_video(job, clip, painted, attempt)
        driving = await stages.analyze(job, video.video)
        verdict, matched = await stages.check_video(job, clip, painted, video, driving)
    except Rejected as e:
        return None, refusal(e)
    if verdict.decision == "review":
        raise to_review(verdict, stages.where(video.video))
    if not verdict.accepted:
        return None, verdict
    return Performance(video.video, driving, matched, painted, video_prompt(painted), verdict, attempt + 1), verdict


async def perform_again(job: Job, clip: Clip, winner: Performance, attempt: int, stages: Stages) -> tuple[Performance | None, Verdict]:
    """The second round of pose extraction: all as it was for the winner, but the poses are the winner's instead of the clip's, so the
    generator's bias is in it twice. None, with the verdict, when it is no worse, or worse in something that poses do not change."""
    again = winner.as_clip
    try:
        video = await stages.generate_video(job, again, winner.painted, attempt)
        if video.video == winner.driving:
            return None, refusal(Rejected("the second round gave the same video", "loser_not_worse"))
        analysis = await stages.analyze(job, video.video)
        verdict = await stages.check_loser(job, clip, winner.painted, video, analysis, winner.verdict)
    except Rejected as e:
        return None, refusal(e)
    if verdict.decision == "review":
        raise to_review(verdict, stages.where(video.video))
    if not verdict.accepted:
        return None, verdict
    return Performance(video.video, analysis, (), winner.painted, winner.prompt, verdict, attempt + 1), verdict


async def reworded(job: Job, painted: tuple[PaintedCharacter, ...], verdict: Verdict, stages: Stages) -> tuple[PaintedCharacter, ...]:
    """The same characters with prompts that answer what was found in the video; as they are where nobody finds better words."""
    if verdict.decision != "revise":
        return painted
    try:
        return tuple([replace(one, prompt=await stages.revise(job, one.prompt, verdict, "video")) for one in painted])
    except Rejected:
        return painted


def refusal(error: Rejected) -> Verdict:
    """A generator that refuses its input, a file that is no good, a model that answers nonsense, as a verdict: the next candidate or seed
    may do better."""
    return Verdict(decision="reject", reason=error.code, findings=(Finding(code=error.code, words=error.message),))


def to_review(verdict: Verdict, where: str) -> NeedsReview:
    """What a person has to look at, and why."""
    words = "; ".join(f.words for f in verdict.findings) or verdict.reason
    return NeedsReview(f"{words} Look at {where}", verdict.reason)


async def render_pose(job: Job, clip: Clip, stages: Stages) -> Performance:
    """A pose pair drives with a rendering of the real clip's poses; nothing is selected or painted."""
    video = await stages.generate_video(job, clip, (), 0)
    return Performance(video.video, clip.analysis, clip.driven, (), "", Verdict(decision="accept"), 1)


async def assemble(job: Job, clip: Clip, done: Performance, stages: Stages) -> Pair:
    """Reverse driving: the synthetic video drives, the real span is the target, a picture of the real people is the reference.

    Masks come from driving and reference; the caption and the boxes are the only things taken from the target.
    """
    assert clip.reference is not None
    masks = await stages.draw_masks(job, done.driving, done.analysis, done.matched, clip.reference)
    caption = await stages.caption(job, clip)
    boxes = await stages.boxes(job, clip)
    prints = await stages.prints(job, clip, done.painted)
    return Pair(
        key=job.key, job=job.id, slice=job.slice, task=job.task, split=job.split, group=job.group,
        generator=stages.generator_of(job), geometry=job.span.geometry, driving=done.driving, target=clip.target,
        driving_mask=masks.driving_mask, references=(masks.reference,), reference_masks=(masks.reference_mask,),
        reference_in_target=clip.reference.in_target, slots=masks.slots, caption=caption, prompt=done.prompt,
        scores=done.verdict.scores, boxes=boxes, text_boxes="measured", licence=job.licence, lineage=lineage(job, done), prints=prints,
    )  # fmt: skip


async def assemble_preference(job: Job, clip: Clip, winner: Performance, loser: Performance, stages: Stages) -> Pair:
    """Nothing is turned round: the real span drives, the painted picture is the reference, winner and loser are what may come of them.

    Masks come from the span and the reference; caption and boxes are the only things taken from winner and loser.
    """
    reference = await stages.painted_reference(job, winner.painted[0])
    masks = await stages.draw_masks(job, clip.target, clip.analysis, clip.driven, reference)
    boxes, loser_boxes = await stages.boxes(job, winner.as_clip), await stages.boxes(job, loser.as_clip)
    if not (has_region(boxes) and has_region(loser_boxes)):
        raise Rejected("no hand and no face can be seen, in the winner or in the loser", "no_region")
    caption = await stages.caption(job, winner.as_clip)
    prints = await stages.prints(job, clip, winner.painted)
    scores = winner.verdict.scores | {f"loser_{name}": score for name, score in loser.verdict.scores.items()}
    return Pair(
        key=job.key, job=job.id, slice=job.slice, task=job.task, split=job.split, group=job.group,
        generator=stages.generator_of(job), geometry=job.span.geometry, driving=clip.target, winner=winner.driving, loser=loser.driving,
        driving_mask=masks.driving_mask, references=(masks.reference,), reference_masks=(masks.reference_mask,),
        reference_in_target=False, slots=masks.slots, caption=caption, prompt=winner.prompt, scores=scores, boxes=boxes,
        loser_boxes=loser_boxes, text_boxes="measured", licence=job.licence, lineage=lineage(job, winner), prints=prints,
    )  # fmt: skip


def has_region(boxes: tuple[FrameBoxes, ...]) -> bool:
    """Whether any frame shows a hand or a face."""
    return any(frame.hands or frame.faces for frame in boxes)


def lineage(job: Job, done: Performance) -> Lineage:
    """Where a pair came from."""
    return Lineage(
        source=job.span.source, start_frame=job.span.start_frame, crop=job.span.crop,
        characters=tuple(p.selection.character for p in done.painted), painted=tuple(p.picture.digest for p in done.painted),
        image_attempts=sum(p.attempts for p in done.painted), video_attempts=done.video_attempts,
    )  # fmt: skip
