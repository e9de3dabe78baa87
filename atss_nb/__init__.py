"""Oriented object detection with Adaptive Training Sample Selection (ATSS).

    from atss_nb import load
    detections = load("runs/mine")("harbour.tif")

A box is (cx, cy, w, h, angle) in pixels and radians; y points down and a positive angle turns clockwise on the
screen. All names below are imported when they are first used: `import atss_nb` loads neither torch nor numba.

Boxes
    AngleDef, regularize, convert       the angle definitions oc, le90 and le135, and the way between conventions
    poly2obb, obb2poly                  four corners <-> five numbers
    obb2hbb, hbb2obb                    the upright box around an oriented one, and back
    box_iou_rotated                     exact, differentiable overlap: IoU, IoF, GIoU; all pairs or row by row
    nms_rotated, batched_nms_rotated    non-maximum suppression, as torchvision's

Samples
    AnchorGrid                          anchors on the cells of a feature pyramid
    ATSS, MaxIoU, CenterSampling        which anchor learns which object; .explain says why
    DeltaXYWHA, DistanceLTRB            box coders
    assignment_report                   what a rule does to all objects of a data set

Detectors
    ModelConfig, build_model            every choice that makes a detector, and the detector
    RetinaNet, FasterRCNN               one stage, two stages
    TrainConfig, train                  every choice that makes a run, and the run
    recipes                             the rows of the result table by name

Detections
    load, Detector                      a trained detector that takes images and answers Detections
    Detections                          boxes with classes and scores: index, filter, plot, save, convert
    predict                             the same for a model of your own, on images of any size
    evaluate                            average precision under five protocols

Data
    open_dataset                        images and labels in any known format, as tensors
    make_scene, write_scenes            aerial scenes with exact labels, from a seed

Pictures
    Microscope                          drag a box and watch ATSS choose (in Jupyter)

The packages, from the bottom to the top: core, geometry, samples, model, data, scenes, tiles, evaluation, training,
inference, recipes, plots, explore, cli. Each module is exported from one notebook of the course or the workshop.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
