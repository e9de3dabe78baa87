"""Where the time of a training step's forward pass goes: the network, the assignment, the decoding, the losses.

And what comes after the network in a prediction: choosing, decoding and suppression of 2,000 candidates.

Processor time on one thread: what else the machine does hardly counts.

python bench/step.py [--side 1024] [--objects 100] [--repeats 3]    prints a table and writes bench/results/step.json
"""

from collections import defaultdict
from functools import partial
from statistics import median
from time import process_time

import torch

from atss_nb.model import retinanet
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from common import RESULTS, arguments, boxes_like_dota, command_line, machine, seconds, write

RULES = {
    "ATSS, 1 anchor": {},
    "MaxIoU, 9 anchors": {"assigner": "max_iou", "scales_per_octave": 3, "ratios": (0.5, 1.0, 2.0)},
}
PARTS = ("backbone", "head", "anchors", "assignment", "decoding", "class loss", "box loss")
OURS = ("assignment", "decoding", "class loss", "box loss", "checks and bookkeeping")


def scene(side: int, objects: int) -> tuple[list, list]:
    "Noise and oriented boxes: time does not depend on what is seen."
    rng, boxes = torch.Generator().manual_seed(0), boxes_like_dota(objects, side).float()
    labels = torch.randint(15, (objects,), generator=rng)
    return [torch.rand(3, side, side, generator=rng)], [{"boxes": boxes, "labels": labels}]


class Clock:
    "Adds up the seconds spent in functions."

    def __init__(self):
        self.seconds = defaultdict(float)

    def timed(self, part: str, function):
        def call(*args, **options):
            start = process_time()
            result = function(*args, **options)
            self.seconds[part] += process_time() - start
            return result

        return call


def watch(model: retinanet.RetinaNet, clock: Clock) -> None:
    "Put the clock on every part of the detector."
    for part, module in (("backbone", model.backbone), ("head", model.head)):
        module.forward = clock.timed(part, module.forward)
    model.anchor_grid = clock.timed("anchors", model.anchor_grid)
    model.anchor_targets = clock.timed("assignment", model.anchor_targets)
    retinanet.loss_pair = clock.timed("decoding", retinanet.loss_pair)
    retinanet.focal_loss = clock.timed("class loss", retinanet.focal_loss)
    name = model.config.box_loss
    retinanet.BOX_LOSSES[name] = clock.timed("box loss", retinanet.BOX_LOSSES[name])
    retinanet.retinanet_losses = clock.timed("all losses", retinanet.retinanet_losses)


def one_step(model: retinanet.RetinaNet, clock: Clock, data: tuple[list, list]) -> dict[str, float]:
    "The seconds of each part of one step."
    clock.seconds.clear()
    forward = seconds(lambda: model(*data), clock=process_time)
    parts = dict(clock.seconds)
    inside = sum(parts[name] for name in OURS[1:-1])
    parts["checks and bookkeeping"] = parts.pop("all losses") - inside
    parts["batch and the rest"] = forward - sum(parts.values())
    return parts | {"forward and loss": forward}


def measure(rule: dict, side: int, objects: int, repeats: int) -> dict:
    torch.manual_seed(0)
    originals = {name: getattr(retinanet, name) for name in ("loss_pair", "focal_loss", "retinanet_losses")}
    losses, clock = dict(retinanet.BOX_LOSSES), Clock()
    model = build_model(ModelConfig.resnet(50, **rule), num_classes=15, pretrained=False)
    watch(model, clock)
    one_step(model, clock, scene(256, objects))  # compile
    steps = [one_step(model, clock, scene(side, objects)) for _ in range(repeats)]
    for name, function in originals.items():
        setattr(retinanet, name, function)
    retinanet.BOX_LOSSES.update(losses)
    parts = {part: median(step[part] for step in steps) for part in steps[0]}
    share = sum(parts[name] for name in OURS) / parts["forward and loss"]
    return {"seconds": parts, "share": share}


def after_network(side: int, candidates: int, repeats: int) -> dict[str, float]:
    "Predictions from what a head might give: so many anchors above the threshold, in clusters around objects."
    torch.manual_seed(0)
    model = build_model(ModelConfig.resnet(50), num_classes=15, pretrained=False)
    anchors = model.anchor_grid((side, side))
    objects = boxes_like_dota(candidates // 10, side).float()
    near = torch.cdist(objects[:, :2], anchors.boxes[:, :2]).topk(10, largest=False).indices.flatten()
    logits = torch.full((len(anchors.boxes), 15), -9.0)
    logits[near, torch.randint(15, (len(objects),)).repeat_interleave(10)] = torch.randn(len(near))
    outputs = retinanet.HeadOutput(logits, 0.1 * torch.randn(len(anchors.boxes), 5), None)
    work = partial(retinanet.postprocess, outputs, (side, side), anchors, model.coder, model.config)
    kept = len(work()["boxes"])
    times = [seconds(work, clock=process_time) for _ in range(repeats)]
    found = int((logits > -9).sum())
    return {"anchors": len(logits), "candidates": found, "kept": kept, "ms": 1000 * median(times)}


def table(found: dict[str, dict]) -> str:
    names = [*PARTS, OURS[-1], "batch and the rest", "forward and loss"]
    lines = [f"{'part':24}" + "".join(f"{rule:>26}" for rule in found)]
    for name in names:
        row = [(r["seconds"][name], r["seconds"]["forward and loss"]) for r in found.values()]
        lines.append(f"{name:24}" + "".join(f"{1000 * s:14.1f} ms{s / whole:8.2%} " for s, whole in row))
    ours = "".join(f"{r['share']:25.2%} " for r in found.values())
    return "\n".join([*lines, f"{'assign, decode, losses':24}{ours}"])


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=1024, help="of the image [px]")
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    args = arguments(parser)
    found = {name: measure(rule, args.side, args.objects, args.repeats) for name, rule in RULES.items()}
    print(f"RetinaNet, ResNet-50, one image of {args.side} px, {args.objects} objects, float32; median times")
    print(table(found))
    asked = {"side": args.side, "objects": args.objects, "repeats": args.repeats}
    after = after_network(args.side, 2000, 20 * args.repeats)
    print(
        f"after the network: {after['candidates']} candidates to {after['kept']} boxes in {after['ms']:.1f} ms"
    )
    report = {
        "machine": machine(threads=1),
        "torch": torch.__version__,
        **asked,
        "rules": found,
        "after": after,
    }
    write(args.out or RESULTS / "step.json", report)


if __name__ == "__main__":
    main()
